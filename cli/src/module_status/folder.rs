//! The module's texts, where debugfs has them.

use super::Guest;
use crate::failure::{Exit, Failure};
use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use xen_eventfd::DomId;

/// Where they are: a file for each guest, named by its number.
pub const FOLDER: &str = "sys/kernel/debug/xen-eventfd";
/// The module's device, by which it is known to be there.
const DEVICE: &str = "dev/xen/eventfd";

/// Reads all guests of the module, in the order of their numbers; none, if there is no module.
///
/// `root` is the root of the file system.
///
/// # Errors
/// [`Exit::NotPermitted`] for all but root; [`Exit::Failed`] if the module is there and its texts
/// are not, or a text is not as it should be.
pub fn read(root: &Path) -> Result<Vec<Guest>, Failure> {
    let folder = root.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return if root.join(DEVICE).exists() { Err(unmounted(&folder)) } else { Ok(vec![]) };
        }
        entries => entries.map_err(|error| refused(&folder, &error))?,
    };
    let mut guests = numbers(entries.map(|entry| entry.map(|entry| entry.file_name())))
        .map_err(|error| refused(&folder, &error))?;
    guests.sort_unstable();
    guests.into_iter().filter_map(|dom| one(&folder, dom).transpose()).collect()
}

/// The guests whose files these are. `05` and `+5` are no names that the module gives.
fn numbers(names: impl Iterator<Item = io::Result<OsString>>) -> io::Result<Vec<DomId>> {
    let number = |name: OsString| {
        let dom = DomId(name.to_str()?.parse().ok()?);
        (name == *dom.0.to_string()).then_some(dom)
    };
    names.filter_map(|name| name.map(number).transpose()).collect()
}

/// One guest, unless it went meanwhile.
fn one(folder: &Path, dom: DomId) -> Result<Option<Guest>, Failure> {
    let file = folder.join(dom.0.to_string());
    let text = match fs::read(&file) {
        // The name of a process may be cut within a letter.
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(&file, &error)),
    };
    match text.parse::<Guest>() {
        Ok(guest) => Ok((!guest.dead).then_some(guest)),
        Err(why) => {
            let sentence = format!(
                "cannot understand {}: {why}; the module and this program must be of one version",
                file.display()
            );
            Err(Failure::new(Exit::Failed, sentence))
        }
    }
}

fn unmounted(folder: &Path) -> Failure {
    let sentence = format!(
        "the module is loaded, but what it shows is not at {}; \
         mount -t debugfs none /sys/kernel/debug",
        folder.display()
    );
    Failure::new(Exit::Failed, sentence)
}

fn refused(path: &Path, error: &io::Error) -> Failure {
    let (exit, advice) = match error.kind() {
        ErrorKind::PermissionDenied => (Exit::NotPermitted, "; run as root"),
        _ => (Exit::Failed, ""),
    };
    Failure::new(exit, format!("cannot read {}: {error}{advice}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        tree
    }

    fn text(dom: u16, more: &str) -> String {
        format!("dom:\t{dom}\ninterface:\tnative\nowner:\t412 backend\n{more}")
    }

    fn sentence(files: &[(&str, &str)]) -> String {
        read(tree(files).path()).unwrap_err().sentence
    }

    const GUEST: &str = "sys/kernel/debug/xen-eventfd/3";

    #[test]
    fn guests_come_in_the_order_of_their_numbers() {
        let files = [
            ("sys/kernel/debug/xen-eventfd/10", &*text(10, "")),
            ("sys/kernel/debug/xen-eventfd/9", &*text(9, "")),
            ("sys/kernel/debug/xen-eventfd/version", "1"),
        ];
        let doms: Vec<DomId> = read(tree(&files).path()).unwrap().iter().map(|g| g.dom).collect();
        assert_eq!(doms, [DomId(9), DomId(10)]);
    }

    #[test]
    fn a_file_that_is_not_named_as_the_module_names_it_is_no_guests() {
        let files = ["5", "+5", "05", "-5", "5 ", "70000"]
            .map(|name| (format!("sys/kernel/debug/xen-eventfd/{name}"), text(5, "")));
        let files = files.each_ref().map(|(path, text)| (&**path, &**text));
        let doms: Vec<DomId> = read(tree(&files).path()).unwrap().iter().map(|g| g.dom).collect();
        assert_eq!(doms, [DomId(5)]);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_an_error() {
        let entries = [Ok("5".into()), Err(ErrorKind::PermissionDenied.into()), Ok("6".into())];
        let error = numbers(entries.into_iter()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    #[test]
    fn the_dead_are_not_served() {
        let tree = tree(&[(GUEST, &text(3, "state:\tdead\n"))]);
        assert_eq!(read(tree.path()), Ok(vec![]));
    }

    #[test]
    fn a_name_that_is_cut_within_a_letter_is_read() {
        let tree = tree(&[(GUEST, "")]);
        fs::write(tree.path().join(GUEST), b"dom:\t3\ninterface:\tnative\nowner:\t1 caf\xc3\n")
            .unwrap();
        assert_eq!(read(tree.path()).unwrap()[0].owner.name, "caf\u{fffd}");
    }

    #[test]
    fn without_the_module_there_are_none_and_without_debugfs_it_is_said() {
        assert_eq!(read(tree(&[]).path()), Ok(vec![]));
        assert!(sentence(&[("dev/xen/eventfd", "")]).contains("mount -t debugfs"));
    }

    #[test]
    fn what_cannot_be_understood_is_named() {
        let why = sentence(&[(GUEST, &text(3, "server:\tbig\n"))]);
        assert!(why.contains("xen-eventfd/3") && why.contains("line 4"), "{why}");
    }
}
