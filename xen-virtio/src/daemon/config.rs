//! The configuration file: which backends the devices of which guest have.
//!
//! A device is given in the language of `--device`, and may have a command that is its backend. Words in braces stand
//! for what differs from guest to guest.

use crate::layout::Layout;
use crate::spec::DeviceSpec;
use core::fmt;
use core::ops::Range;
use nix::unistd::{Gid, Group, Uid, User};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Where it is, unless another is given.
pub(crate) const DEFAULT: &str = "/etc/xen/virtio.toml";
/// The name that stands for every guest that has no entry of its own.
const EVERY: &str = "*";
/// A directory in which every program lies that a name without a path stands for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A configuration file that has no mistakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    guests: Vec<GuestEntry>,
}

/// The devices of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GuestEntry {
    pub(crate) name: String,
    pub(crate) devices: Vec<DeviceEntry>,
}

/// A device, with words in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceEntry {
    device: String,
    command: Option<Vec<String>>,
    user: Option<String>,
    group: Option<String>,
}

/// A device of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Resolved {
    /// In the language of `--device`.
    pub(crate) device: String,
    /// The socket at which its backend listens, if it has one.
    pub(crate) socket: Option<PathBuf>,
    /// The backend, if it is to be started.
    pub(crate) command: Option<BackendCommand>,
}

/// A backend that is to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BackendCommand {
    pub(crate) words: Vec<String>,
    /// The user and the group that it runs as, by their numbers.
    pub(crate) user: Option<u32>,
    pub(crate) group: Option<u32>,
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// From 1 on.
    pub(crate) line: usize,
    pub(crate) mistake: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.mistake)
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    guest: Vec<WrittenGuest>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGuest {
    name: Spanned<String>,
    #[serde(default)]
    device: Vec<WrittenDevice>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenDevice {
    device: Spanned<String>,
    command: Option<Spanned<Vec<String>>>,
    user: Option<Spanned<String>>,
    group: Option<Spanned<String>>,
}

/// What the words in braces stand for.
#[derive(Debug, Clone, Copy)]
struct Values<'a> {
    guest: &'a str,
    domid: u16,
    /// The directory that the socket is in, which the daemon makes.
    directory: &'a Path,
}

/// Where a backend listens, in the directory of its device.
pub(crate) fn socket_in(directory: &Path) -> PathBuf {
    directory.join("socket")
}

impl Values<'_> {
    /// Puts them into a text.
    ///
    /// # Errors
    /// It has a word in braces that stands for nothing.
    fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            filled += before;
            let (word, after) = after.split_once('}').unwrap_or((after, ""));
            match word {
                "guest" => filled += self.guest,
                "domid" => filled += &self.domid.to_string(),
                "socket" => filled += &socket_in(self.directory).to_string_lossy(),
                _ => {
                    return Err(format!(
                        "{{{word}}} stands for nothing; there are {{socket}}, {{guest}} and {{domid}}"
                    ));
                }
            }
            rest = after;
        }
        Ok(filled + rest)
    }
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read: as the only mistake, on line 1. Or all that is wrong with it.
    pub(crate) fn read(path: &Path) -> Result<Self, Vec<Mistake>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let mistake = format!("cannot read it: {error}");
            vec![Mistake { line: 1, mistake }]
        })?;
        Self::parse(&text)
    }

    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Mistake>> {
        let line =
            |span: Range<usize>| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count();
        let File { guest } = toml::from_str(text).map_err(|error| {
            let mistake = error.message().trim().replace('\n', ", ");
            vec![Mistake { line: line(error.span().unwrap_or(0..0)), mistake }]
        })?;
        let mut mistakes = Vec::new();
        let mut found =
            |span, mistake: String| mistakes.push(Mistake { line: line(span), mistake });
        let mut names = BTreeSet::new();
        for WrittenGuest { name, device } in &guest {
            if let Err(why) = check_name(name.get_ref()) {
                found(name.span(), why);
            } else if !names.insert(name.get_ref()) {
                found(
                    name.span(),
                    format!("{:?} has an entry above; put its devices there", name.get_ref()),
                );
            }
            if device.is_empty() || device.len() > Layout::MOST {
                let why = format!(
                    "{:?} has {} devices; a guest has 1 to {}, each with a [[guest.device]] of its own",
                    name.get_ref(),
                    device.len(),
                    Layout::MOST
                );
                found(name.span(), why);
            }
            device.iter().for_each(|device| device.check(&mut found));
        }
        if guest.is_empty() && mistakes.is_empty() {
            let mistake = "it names no guest; a guest is a [[guest]] with its name";
            mistakes.push(Mistake { line: 1, mistake: mistake.to_owned() });
        }
        if !mistakes.is_empty() {
            return Err(mistakes);
        }
        let guests = guest.into_iter().map(|guest| GuestEntry {
            name: guest.name.into_inner(),
            devices: guest.device.into_iter().map(WrittenDevice::entry).collect(),
        });
        Ok(Self { guests: guests.collect() })
    }

    /// The guests that it names.
    pub(crate) fn guests(&self) -> &[GuestEntry] {
        &self.guests
    }

    /// The entry of a guest: its own, or that of every guest.
    pub(crate) fn entry(&self, name: &str) -> Option<&GuestEntry> {
        let named = |wanted: &str| self.guests.iter().find(|guest| guest.name == wanted);
        named(name).or_else(|| named(EVERY))
    }
}

impl GuestEntry {
    /// Its devices, for a guest with this name and number, whose devices have their sockets in directories below
    /// `directory`.
    ///
    /// # Errors
    /// The guest's name cannot stand in a command.
    pub(crate) fn resolve(
        &self,
        guest: &str,
        domid: u16,
        directory: &Path,
    ) -> Result<Vec<Resolved>, String> {
        check_name(guest)?;
        let resolve = |(number, device): (usize, &DeviceEntry)| {
            let directory = directory.join(number.to_string());
            device.resolve(Values { guest, domid, directory: &directory })
        };
        self.devices.iter().enumerate().map(resolve).collect()
    }
}

impl WrittenDevice {
    fn check(&self, found: &mut impl FnMut(Range<usize>, String)) {
        let Self { device, command, user, group } = self;
        let values = Values { guest: "guest", domid: 1, directory: Path::new("/run") };
        match values.fill(device.get_ref()).and_then(|text| parse(&text)) {
            Err(why) => found(device.span(), why),
            Ok(spec) if !spec.descriptors().is_empty() => {
                let why = "fd= is a descriptor of the process that gives it; name the tap device: tap=NAME";
                found(device.span(), why.to_owned());
            }
            Ok(_) => {}
        }
        let has_socket = device.get_ref().contains("{socket}");
        match command {
            None if has_socket => {
                let why = "{socket} is made for a command; give one, or the path at which the backend listens";
                found(device.span(), why.to_owned());
            }
            Some(_) if !has_socket => {
                let why = "it has a command, whose socket is {socket}: write socket={socket}";
                found(device.span(), why.to_owned());
            }
            _ => {}
        }
        if let Some(command) = command {
            let words = command.get_ref();
            if let Err(why) = check_command(words, values) {
                found(command.span(), why);
            }
        }
        for (what, name) in [("user", user), ("group", group)] {
            let Some(name) = name else { continue };
            if command.is_none() {
                found(name.span(), format!("{what} is of a command, and there is none"));
            } else if let Err(why) = number_of(what, name.get_ref()) {
                found(name.span(), why);
            }
        }
    }

    fn entry(self) -> DeviceEntry {
        DeviceEntry {
            device: self.device.into_inner(),
            command: self.command.map(Spanned::into_inner),
            user: self.user.map(Spanned::into_inner),
            group: self.group.map(Spanned::into_inner),
        }
    }
}

impl DeviceEntry {
    fn resolve(&self, values: Values<'_>) -> Result<Resolved, String> {
        let device = values.fill(&self.device)?;
        let socket = parse(&device)?.socket().map(Path::to_owned);
        let number = |what, name: &Option<String>| {
            name.as_ref().map(|name| number_of(what, name)).transpose()
        };
        let command = match &self.command {
            None => None,
            Some(words) => Some(BackendCommand {
                words: words.iter().map(|word| values.fill(word)).collect::<Result<_, _>>()?,
                user: number("user", &self.user)?.map(|(user, _)| user),
                group: match number("group", &self.group)? {
                    Some((group, _)) => Some(group),
                    None => number("user", &self.user)?.map(|(_, group)| group),
                },
            }),
        };
        Ok(Resolved { device, socket, command })
    }
}

impl Resolved {
    /// Its virtio number.
    pub(crate) fn device_type(&self) -> Option<u16> {
        parse(&self.device).ok().map(|spec| spec.kind.device_type)
    }
}

fn parse(device: &str) -> Result<DeviceSpec, String> {
    device.parse().map_err(|error: crate::spec::SpecError| error.to_string())
}

/// A name stands in paths, commands and devices.
fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if name == EVERY
        || (name.bytes().all(fits) && !name.is_empty() && !name.starts_with(['.', '-']))
    {
        return Ok(());
    }
    Err(format!(
        "{name:?} is no name of a guest here: it is {EVERY:?}, or letters, digits and any of ._+- with a letter or a \
         digit first"
    ))
}

fn check_command(words: &[String], values: Values<'_>) -> Result<(), String> {
    let Some(program) = words.first() else {
        return Err("it has no words; the first is the program".to_owned());
    };
    let filled: Vec<String> =
        words.iter().map(|word| values.fill(word)).collect::<Result<_, _>>()?;
    if !words.iter().any(|word| word.contains("{socket}")) {
        return Err("{socket} is not among its words: the backend must listen there".to_owned());
    }
    let program_path = filled.first().map(Path::new).unwrap_or(Path::new(""));
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
    let is_there = match program_path.components().count() {
        1 => path.split(':').any(|folder| Path::new(folder).join(program_path).is_file()),
        _ => program_path.is_file(),
    };
    match is_there {
        true => Ok(()),
        false => Err(format!("there is no program {program:?}; install it, or give its path")),
    }
}

/// The number of a user, with that of its group, or of a group.
fn number_of(what: &str, name: &str) -> Result<(u32, u32), String> {
    let numbers = match what {
        "user" => User::from_name(name).map(|user| user.map(|user| (user.uid, user.gid))),
        _ => Group::from_name(name).map(|group| group.map(|group| (Uid::from_raw(0), group.gid))),
    };
    match numbers {
        Ok(Some((user, group))) if what == "user" => Ok((Uid::as_raw(user), Gid::as_raw(group))),
        Ok(Some((_, group))) => Ok((Gid::as_raw(group), 0)),
        Ok(None) => Err(format!("there is no {what} {name:?}; make it, or give another")),
        Err(errno) => Err(format!("cannot look for the {what} {name:?}: {errno}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
[[guest]]
name = "web"

[[guest.device]]
device = "blk,socket={socket},queues=2"
command = ["sh", "-c", "{guest} {domid} {socket}"]
user = "root"

[[guest.device]]
device = "net,tap=vif{domid}.0"

[[guest]]
name = "*"

[[guest.device]]
device = "rng,socket=/run/rng.sock"
"#;

    #[test]
    fn a_guest_has_the_devices_of_its_entry_or_those_of_every_guest() {
        let config = Config::parse(FILE).unwrap();
        let of = |name: &str| config.entry(name).unwrap().resolve(name, 5, Path::new("/run/x/5"));
        let web = of("web").unwrap();
        let socket = Path::new("/run/x/5/0/socket");
        assert_eq!(web[0].device, "blk,socket=/run/x/5/0/socket,queues=2");
        assert_eq!(web[0].socket.as_deref(), Some(socket));
        let command = web[0].command.clone().unwrap();
        assert_eq!(command.words[2], "web 5 /run/x/5/0/socket");
        assert_eq!((command.user, command.group), (Some(0), Some(0)));
        assert_eq!((&*web[1].device, &web[1].command), ("net,tap=vif5.0", &None));
        assert_eq!((web[0].device_type(), web[1].device_type()), (Some(2), Some(1)));
        let other = of("other").unwrap();
        assert_eq!(other[0].device, "rng,socket=/run/rng.sock");
        assert_eq!((other.len(), other[0].command.is_none()), (1, true));
        assert_eq!(other[0].socket.as_deref(), Some(Path::new("/run/rng.sock")));
        // It would stand in a device and a command.
        for name in ["a,b", "../etc", "a b", ""] {
            assert!(of(name).unwrap_err().contains("is no name"), "{name}");
        }
    }

    #[test]
    fn what_pages_and_packages_show_has_no_mistake() {
        let pages = [
            ("virtio-guests", include_str!("../../../docs/virtio-guests.md")),
            ("blk", include_str!("../../../docs/devices/blk.md")),
            ("net", include_str!("../../../docs/devices/net.md")),
            ("fs", include_str!("../../../docs/devices/fs.md")),
            ("vsock", include_str!("../../../docs/devices/vsock.md")),
        ];
        let files = pages.map(|(name, page)| {
            let file = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
            (name, file.unwrap_or_else(|| panic!("{name}: it shows no file")))
        });
        let package = ("package", include_str!("../../../packaging/command/virtio.toml"));
        for (name, file) in files.into_iter().chain([package]) {
            let mistakes = Config::parse(file).err().unwrap_or_default();
            // The machine of the tests lacks the backends.
            let is_real = |mistake: &&Mistake| !mistake.to_string().contains("there is no program");
            let real: Vec<&Mistake> = mistakes.iter().filter(is_real).collect();
            assert!(real.is_empty(), "{name}: {real:?}");
        }
    }

    #[test]
    fn each_mistake_has_its_line() {
        for (line, written, wrong, says) in [
            (3, "name = \"web\"", "name = \"*\"", ""),
            (3, "name = \"web\"", "name = \"a b\"", "is no name"),
            (3, "name = \"web\"", "nam = \"web\"", "unknown field `nam`"),
            (3, "\"web\"", "\"web", "expected `\"`"),
            (6, "blk,", "disc,", "is no device type"),
            (6, "{socket},", "{sock},", "{sock} stands for nothing"),
            (6, "={socket},queues", "=/run/a,queues", "write socket={socket}"),
            (7, " {socket}\"", "\"", "the backend must listen there"),
            (7, "\"sh\"", "\"no-such-program\"", "there is no program \"no-such-program\""),
            (7, "\"sh\"", "\"/no/such\"", "there is no program \"/no/such\""),
            (7, "[\"sh\", \"-c\", \"{guest} {domid} {socket}\"]", "[]", "it has no words"),
            (8, "\"root\"", "\"no-such-user\"", "there is no user"),
            (8, "user = \"root\"", "group = \"no-such-group\"", "there is no group"),
            (11, "tap=vif{domid}.0", "tap=t\"\nuser = \"root", "user is of a command"),
            (11, "tap=vif{domid}.0", "fd=3", "name the tap device"),
            (17, "/run/rng.sock", "{socket}", "{socket} is made for a command"),
            (14, "name = \"*\"", "name = \"web\"", "has an entry above"),
        ] {
            let file = FILE.replacen(written, wrong, 1);
            assert_ne!(file, FILE, "{written} is not there");
            let mistakes = Config::parse(&file).unwrap_err();
            // The second of two entries is the wrong one, and a second line was put in.
            let line = if says.is_empty() { 14 } else { line + usize::from(wrong.contains('\n')) };
            let found =
                mistakes.iter().any(|found| found.line == line && found.mistake.contains(says));
            assert!(found, "{wrong}: {mistakes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let mistakes =
            Config::parse(&FILE.replace("blk,", "disc,").replace("rng,", "ring,")).unwrap_err();
        let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
        assert_eq!(lines, [6, 17]);
        let none = Config::parse("").unwrap_err();
        assert!(none[0].mistake.contains("names no guest"), "{none:?}");
        let empty = Config::parse("[[guest]]\nname = \"web\"\n").unwrap_err();
        assert!(empty[0].mistake.contains("has 0 devices"), "{empty:?}");
        let absent = Config::read(Path::new("/no/such/file")).unwrap_err();
        assert!(absent[0].mistake.contains("cannot read it"), "{absent:?}");
    }
}
