//! The machine's own apt sources: where its mirror is, and who signs it.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};

/// One repository that apt on this machine already uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    pub(crate) uris: Vec<String>,
    pub(crate) suites: Vec<String>,
    pub(crate) components: Vec<String>,
    /// Options that say how the repository is verified (`Signed-By`, …), as deb822 fields.
    pub(crate) trust: BTreeMap<String, String>,
}

/// Options that must follow the mirror into the private configuration.
const TRUST_FIELDS: [&str; 4] = ["Signed-By", "Trusted", "Check-Valid-Until", "Allow-Insecure"];

/// Suites that a Debian mirror carries under these very names.
const DEBIAN_SUITES: [&str; 9] =
    ["bookworm", "trixie", "forky", "sid", "stable", "testing", "unstable", "oldstable", "duke"];

impl Source {
    /// The same repository as a deb822 stanza with other suites, and of other types: `deb`,
    /// `deb-src`.
    pub(crate) fn stanza(&self, types: &[&str], suites: &[&str], architectures: &[&str]) -> String {
        let mut text = format!(
            "Types: {}\nURIs: {}\nSuites: {}\nComponents: main\nArchitectures: {}\n",
            types.join(" "),
            self.uris.join(" "),
            suites.join(" "),
            architectures.join(" "),
        );
        for (field, value) in &self.trust {
            text.push_str(&format!("{field}: {value}\n"));
        }
        text
    }

    /// How surely this is the mirror of Debian itself; `None` if it is something else.
    ///
    /// A third party may offer a suite with Debian's name too, so the signer and the company of
    /// an updates suite count.
    fn likeness(&self) -> Option<u32> {
        if !self.components.iter().any(|component| component == "main")
            || !self.suites.iter().any(|suite| DEBIAN_SUITES.contains(&suite.as_str()))
        {
            return None;
        }
        let signed = self.trust.get("Signed-By").is_some_and(|by| by.contains("debian-archive"));
        let updates = self
            .suites
            .iter()
            .any(|suite| suite.ends_with("-updates") || suite.ends_with("-backports"));
        let named = self.uris.iter().any(|uri| uri.trim_end_matches('/').ends_with("/debian"));
        Some(4 * u32::from(signed) + 2 * u32::from(updates) + u32::from(named))
    }
}

/// The mirror of Debian among `sources`.
pub(crate) fn debian_mirror(sources: &[Source]) -> Option<&Source> {
    let mut best: Option<(&Source, u32)> = None;
    for source in sources {
        let Some(likeness) = source.likeness() else { continue };
        if best.is_none_or(|(_, known)| likeness > known) {
            best = Some((source, likeness));
        }
    }
    best.map(|(source, _)| source)
}

/// Reads all sources below `etc_apt` (usually `/etc/apt`).
pub(crate) fn read(etc_apt: &Path) -> Result<Vec<Source>> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        let mut parts: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        parts.sort();
        files.extend(parts);
    }
    let mut sources = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let parsed = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_list(&text),
            Some("sources") => parse_deb822(&text),
            _ => continue,
        };
        sources.extend(parsed.with_context(|| format!("{}: not apt sources", file.display()))?);
    }
    Ok(sources)
}

/// The one-line format: `deb [signed-by=KEY] URI SUITE COMPONENT…`.
pub(crate) fn parse_list(text: &str) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some(rest) = line.strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t']))
        else {
            continue;
        };
        let mut rest = rest.trim();
        let mut trust = BTreeMap::new();
        if let Some(options) = rest.strip_prefix('[') {
            let Some((options, after)) = options.split_once(']') else {
                bail!("line {}: the options' closing bracket is missing", number + 1);
            };
            rest = after.trim();
            for option in options.split_whitespace() {
                let Some((name, value)) = option.split_once('=') else { continue };
                insert_trust(&mut trust, name, &value.replace(',', " "));
            }
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else {
            bail!("line {}: a URI and a suite are expected", number + 1);
        };
        sources.push(Source {
            uris: vec![uri],
            suites: vec![suite],
            components: words.collect(),
            trust,
        });
    }
    Ok(merge_suites(sources))
}

/// The deb822 format: stanzas of `Field: value`, values may go on over indented lines.
pub(crate) fn parse_deb822(text: &str) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for stanza in stanzas(text)? {
        let words = |field: &str| -> Vec<String> {
            let value = stanza.get(field).map(String::as_str).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        let disabled = stanza
            .get("enabled")
            .is_some_and(|value| ["no", "false", "0", "off"].contains(&value.trim()));
        if disabled || !words("types").iter().any(|kind| kind == "deb") {
            continue;
        }
        let mut trust = BTreeMap::new();
        for (name, value) in &stanza {
            insert_trust(&mut trust, name, value);
        }
        sources.push(Source {
            uris: words("uris"),
            suites: words("suites"),
            components: words("components"),
            trust,
        });
    }
    Ok(sources)
}

fn stanzas(text: &str) -> Result<Vec<BTreeMap<String, String>>> {
    let mut all = Vec::new();
    let mut stanza = BTreeMap::<String, String>::new();
    let mut field = None::<String>;
    for (number, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            field = None;
            if !stanza.is_empty() {
                all.push(std::mem::take(&mut stanza));
            }
        } else if line.starts_with([' ', '\t']) {
            let Some(value) = field.as_ref().and_then(|field| stanza.get_mut(field)) else {
                bail!("line {}: it goes on from no field", number + 1);
            };
            value.push('\n');
            value.push_str(line);
        } else if let Some((name, value)) = line.split_once(':') {
            let name = name.trim().to_lowercase();
            stanza.insert(name.clone(), value.trim().to_owned());
            field = Some(name);
        } else {
            bail!("line {}: neither a field nor an indented line", number + 1);
        }
    }
    if !stanza.is_empty() {
        all.push(stanza);
    }
    Ok(all)
}

fn insert_trust(trust: &mut BTreeMap<String, String>, name: &str, value: &str) {
    if let Some(field) = TRUST_FIELDS.iter().find(|field| field.eq_ignore_ascii_case(name)) {
        trust.insert((*field).to_owned(), value.to_owned());
    }
}

/// Lines of one repository are one source, as they would be in a deb822 stanza.
fn merge_suites(lines: Vec<Source>) -> Vec<Source> {
    let mut sources = Vec::<Source>::new();
    for line in lines {
        let same = sources
            .iter_mut()
            .find(|source| source.uris == line.uris && source.trust == line.trust);
        if let Some(source) = same {
            source.suites.extend(line.suites);
            source.components.extend(line.components);
        } else {
            sources.push(line);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
# a comment
Types: deb
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb deb-src
Enabled: no
URIs: http://off.example/debian
Suites: trixie
Components: main
";

    #[test]
    fn deb822_stanzas_are_read() {
        let sources = parse_deb822(DEB822).unwrap();
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].trust["Signed-By"], "/usr/share/keyrings/debian-archive-keyring.gpg");
    }

    #[test]
    fn an_embedded_key_survives() {
        let text = "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\n\
                    Signed-By:\n -----BEGIN PGP-----\n .\n abc\n -----END PGP-----\n";
        let sources = parse_deb822(text).unwrap();
        let stanza = sources[0].stanza(&["deb"], &["trixie-backports"], &["amd64"]);
        assert!(stanza.contains("Signed-By: \n -----BEGIN PGP-----\n .\n abc\n"), "{stanza}");
        assert!(stanza.contains("Suites: trixie-backports\n"));
    }

    #[test]
    fn one_line_sources_are_read() {
        let text = "deb [arch=amd64 signed-by=/k.gpg] http://m.example/debian bookworm main # x\n\
                    deb-src http://m.example/debian bookworm main\n\
                    deb [signed-by=/k.gpg] http://m.example/debian bookworm-updates main contrib\n\
                    # deb http://old.example/debian buster main\n";
        let sources = parse_list(text).unwrap();
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(sources[0].trust["Signed-By"], "/k.gpg");
    }

    #[test]
    fn broken_lines_are_named() {
        assert!(parse_list("deb [x http://m bookworm main").is_err());
        assert!(parse_list("\ndeb http://m").unwrap_err().to_string().contains("line 2"));
        assert!(parse_deb822("nonsense").unwrap_err().to_string().contains("line 1"));
    }

    #[test]
    fn the_mirror_is_debian_itself() {
        let text = "deb http://tools.example/runner bookworm main\n\
                    deb http://mirror.example/debian-security bookworm-security main\n\
                    deb http://mirror.example/debian bookworm main\n\
                    deb http://other.example/node nodistro main\n";
        let sources = parse_list(text).unwrap();
        assert_eq!(debian_mirror(&sources).unwrap().uris, ["http://mirror.example/debian"]);
        assert_eq!(debian_mirror(&parse_list("deb http://u.example/u noble main").unwrap()), None);
        let signed = parse_deb822(DEB822).unwrap();
        assert_eq!(debian_mirror(&signed).unwrap().uris, ["http://mirror.example/debian"]);
    }
}
