//! Which domain a user means.

use crate::{Error, Result};
use core::str::FromStr;
use xen_eventfd_core::DomId;
use xen_eventfd_host::{Domain, Host};

/// A domain as a user names it, by the rule of `xl`: a word of nothing but digits is a number, whatever
/// domains are called; any other is a name, letter for letter. So `5` and `05` are domain 5, also where
/// another is called "5"; `+5`, ` 5` and `5x` are names.
///
#[doc = example!(r#"
let twin = model.domain(xen_eventfd_model::Config::new("1"));
assert_eq!("1".parse::<DomainSelector>()?, DomainSelector::Number(DomId(1)));
assert_eq!(xen.find("1")?.id, dom, "not the one that is called so");
assert_eq!(xen.find(&twin.0.to_string())?.id, twin);
"#)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainSelector {
    /// By its number.
    Number(DomId),
    /// By its name.
    Name(String),
}

impl FromStr for DomainSelector {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        if word.is_empty() || !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Name(word.to_owned()));
        }
        let number = word.parse().map_err(|_| Error::UnknownDomain(word.to_owned()))?;
        Ok(Self::Number(DomId(number)))
    }
}

impl DomainSelector {
    /// The number that is meant, of these domains if it is given by name. Whether a domain has a
    /// number that is given is not checked.
    ///
    /// # Errors
    /// [`Error::UnknownDomain`]; [`Error::AmbiguousName`].
    ///
    #[doc = example!(r#"
let names = [(DomId(3), "web"), (DomId(4), "7")];
assert_eq!("web".parse::<DomainSelector>()?.among(names)?, DomId(3));
assert_eq!("7".parse::<DomainSelector>()?.among(names)?, DomId(7));
assert!("db".parse::<DomainSelector>()?.among(names).is_err());
"#)]
    pub fn among<'a>(&self, names: impl IntoIterator<Item = (DomId, &'a str)>) -> Result<DomId> {
        let name = match self {
            Self::Number(dom) => return Ok(*dom),
            Self::Name(name) => name,
        };
        let mut found = names.into_iter().filter(|(_, other)| other == name).map(|(dom, _)| dom);
        let first = found.next().ok_or_else(|| Error::UnknownDomain(name.clone()))?;
        match found.next() {
            None => Ok(first),
            Some(second) => Err(Error::AmbiguousName { name: name.clone(), doms: [first, second] }),
        }
    }
}

/// Finds a domain by its number or its name, without an engine ([`DomainSelector`]).
///
/// # Errors
/// [`Error::UnknownDomain`], [`Error::AmbiguousName`], or what the host answers.
///
#[doc = example!(r#"
assert_eq!(find(&*host, "guest")?.id, dom);
"#)]
pub fn find(host: &dyn Host, word: &str) -> Result<Domain> {
    let selector: DomainSelector = word.parse()?;
    let unknown = || Error::UnknownDomain(word.to_owned());
    if let DomainSelector::Number(dom) = selector {
        // Also one that has no name, as it is being built or was made without a toolstack.
        return host.domain(dom).map_err(|error| match error.is_gone() {
            true => unknown(),
            false => error.into(),
        });
    }
    let domains = host.domains()?;
    let named = domains.iter().filter_map(|domain| Some((domain.id, domain.name.as_deref()?)));
    let dom = selector.among(named)?;
    domains.into_iter().find(|domain| domain.id == dom).ok_or_else(unknown)
}
