//! The run directory is this user's alone, and stays the same wherever the program goes.

use crate::alone::alone;
use crate::bench::Bench;
use rustix::fs::{CWD, FileType, Mode};
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;
use xen_eventfd::{Error, Guardian, Xen, run_dir};

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Refused with a sentence that says this; returns it.
#[track_caller]
fn untrusted<T>(result: Result<T, Error>, says: &str) {
    let Err(error) = result else { panic!("it was used") };
    let sentence = error.to_string();
    assert!(matches!(error, Error::Untrusted { .. }) && sentence.contains(says), "{sentence}");
}

#[test]
fn whatever_the_umask_only_its_user_may_look_into_it() {
    alone("run_dir::whatever_the_umask_only_its_user_may_look_into_it", || {
        for umask in [0, 0o022, 0o177] {
            let bench = Bench::new();
            let path = bench.run_dir.path().join("run");
            let before = rustix::process::umask(Mode::from_raw_mode(umask));
            let xen = bench.xen_of(&bench.backend, &path).unwrap();
            let _guest = xen.guest(bench.dom).unwrap();
            rustix::process::umask(before);
            assert_eq!(mode(&path), 0o700, "under umask {umask:03o}");
            for name in ["1.lock", "1.json"] {
                assert_eq!(mode(&path.join(name)), 0o600, "{name} under umask {umask:03o}");
            }
        }
    });
}

#[test]
fn one_that_is_made_on_the_way_to_it_is_no_others_to_change() {
    alone("run_dir::one_that_is_made_on_the_way_to_it_is_no_others_to_change", || {
        let bench = Bench::new();
        rustix::process::umask(Mode::empty());
        bench.xen_of(&bench.backend, &bench.run_dir.path().join("on/the/way")).unwrap();
        for name in ["on", "on/the"] {
            assert_eq!(mode(&bench.run_dir.path().join(name)), 0o755, "{name}");
        }
    });
}

#[test]
fn a_link_in_the_place_of_a_file_is_not_followed() {
    for suffix in ["lock", "new", "json"] {
        for hard in [false, true] {
            let bench = Bench::new();
            let dir = bench.run_dir.path();
            let (victim, link) = (dir.join("victim"), dir.join(format!("1.{suffix}")));
            std::fs::write(&victim, "precious").unwrap();
            std::fs::set_permissions(&victim, Permissions::from_mode(0o644)).unwrap();
            if hard {
                std::fs::hard_link(&victim, &link).unwrap();
            } else {
                symlink(&victim, &link).unwrap();
            }
            let taken = bench.xen().guest(bench.dom);
            match suffix {
                // A draft is made anew, and its name is the record's then.
                "new" => assert!(std::fs::symlink_metadata(dir.join("1.json")).unwrap().is_file()),
                _ if hard => untrusted(taken.as_ref().map_err(Clone::clone), "hard link"),
                _ => untrusted(taken.as_ref().map_err(Clone::clone), "symbolic link"),
            }
            assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious", "{link:?}");
            assert_eq!(mode(&victim), 0o644, "{link:?}");
        }
    }
}

#[test]
fn a_link_to_nothing_makes_nothing() {
    for suffix in ["lock", "new", "json"] {
        let (bench, elsewhere) = (Bench::new(), tempfile::tempdir().unwrap());
        let target = elsewhere.path().join("made");
        symlink(&target, bench.run_dir.path().join(format!("1.{suffix}"))).unwrap();
        let _taken = bench.xen().guest(bench.dom);
        assert!(!target.exists(), "by 1.{suffix}");
    }
}

#[test]
fn what_is_no_file_is_refused_without_waiting() {
    for suffix in ["lock", "json"] {
        for kind in [FileType::Fifo, FileType::Socket] {
            let bench = Bench::new();
            let path = bench.run_dir.path().join(format!("1.{suffix}"));
            rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR | Mode::WUSR, 0).unwrap();
            untrusted(bench.xen().guest(bench.dom), "no regular file");
        }
    }
}

#[test]
fn a_link_among_the_locks_hides_no_other() {
    let bench = Bench::new();
    let _guest = bench.attach();
    let dir = bench.run_dir.path();
    symlink(dir.join("1.lock"), dir.join("7.lock")).unwrap();
    let holders = run_dir::holders(dir).unwrap();
    assert_eq!(holders.iter().map(|holder| holder.dom).collect::<Vec<_>>(), [bench.dom]);
}

#[test]
fn one_that_others_can_change_is_refused() {
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        let bench = Bench::new();
        let dir = bench.run_dir.path();
        std::fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        untrusted(bench.try_xen(), "chmod go-w");
        untrusted(run_dir::holders(dir), "chmod go-w");
        untrusted(Xen::builder().run_dir(dir).reap_on(&*bench.backend), "chmod go-w");
        std::fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        assert!(bench.try_xen().is_ok());
    }
}

#[test]
fn one_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give files away.
    }
    let bench = Bench::new();
    let dir = bench.run_dir.path();
    std::fs::write(dir.join("1.lock"), "").unwrap();
    std::os::unix::fs::chown(dir.join("1.lock"), Some(12345), None).unwrap();
    untrusted(bench.xen().guest(bench.dom), "belongs to user 12345");
    std::os::unix::fs::chown(dir, Some(12345), None).unwrap();
    untrusted(bench.try_xen(), "belongs to user 12345");
}

#[test]
fn a_link_to_a_directory_is_refused_by_whatever_name() {
    let bench = Bench::new();
    let (real, link) = (bench.run_dir.path().join("real"), bench.run_dir.path().join("link"));
    std::fs::create_dir(&real).unwrap();
    symlink(&real, &link).unwrap();
    for name in [link.clone(), link.join(""), link.join(".")] {
        untrusted(bench.xen_of(&bench.backend, &name), "symbolic link");
    }
    // On the way there it is the administrator's, as /var/run is.
    assert!(bench.xen_of(&bench.backend, &link.join("run")).is_ok());
}

/// What is given as a relative path is meant where it is given.
#[test]
fn a_program_may_leave_its_directory() {
    alone("run_dir::a_program_may_leave_its_directory", || {
        let bench = Bench::new();
        let home = std::fs::canonicalize(bench.run_dir.path()).unwrap();
        std::env::set_current_dir(&home).unwrap();
        let script =
            "#!/bin/sh\necho \"$2\" >$0.said.new\nmv $0.said.new $0.said\ncat >/dev/null\n";
        std::fs::write("guardian", script).unwrap();
        std::fs::set_permissions("guardian", Permissions::from_mode(0o755)).unwrap();
        let builder =
            Xen::builder().run_dir("run").guardian(Guardian::Program("./guardian".into()));
        std::env::set_current_dir("/").unwrap();
        let xen = builder.open_on(bench.backend.clone()).unwrap();
        let guest = xen.guest(bench.dom).unwrap();
        for name in ["1.lock", "1.json"] {
            assert!(home.join("run").join(name).exists(), "{name}");
        }
        let said = home.join("guardian.said");
        while !said.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let said = std::fs::read_to_string(said).unwrap();
        assert_eq!(Path::new(said.trim_end()), home.join("run"), "what the guardian gets");
        std::env::set_current_dir("/dev").unwrap();
        drop(guest);
        assert_eq!(std::fs::read_dir(home.join("run")).unwrap().count(), 0, "files are left");
    });
}
