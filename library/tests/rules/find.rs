//! Which domain is meant by a word.

use crate::bench::Bench;
use xen_eventfd::{DomId, Error, find};
use xen_eventfd_model::Config;

#[test]
fn a_number_is_a_number_whatever_domains_are_called() {
    let bench = Bench::with(Config::new("2"));
    for (name, dom) in [("", 2), ("05", 3), ("+1", 4), (" 1", 5), ("1x", 6), ("65537", 7)] {
        assert_eq!(bench.model.domain(Config::new(name)), DomId(dom));
    }
    let xen = bench.xen();
    for (word, dom) in
        [("2", 2), ("02", 2), ("1", 1), ("0", 0), ("7", 7), ("+1", 4), (" 1", 5), ("1x", 6)]
    {
        assert_eq!(xen.find(word).unwrap().id, DomId(dom), "{word:?}");
        assert_eq!(find(&**xen.host(), word).unwrap().id, DomId(dom), "{word:?}");
    }
    for word in ["", "8", "08", "65536", "65537", "18446744073709551618", "-1", "2 ", "0x2", "٢"] {
        let refused = xen.find(word).unwrap_err();
        assert!(matches!(&refused, Error::UnknownDomain(said) if said == word), "{refused:?}");
    }
}

#[test]
fn a_domain_without_a_name_is_found_by_its_number() {
    let bench = Bench::with(Config::new(""));
    assert_eq!(bench.xen().find("1").unwrap().name, None);
}

#[test]
fn a_name_that_two_have_is_nobodys() {
    let bench = Bench::with(Config::new("web"));
    bench.model.domain(Config::new("web"));
    let refused = bench.xen().find("web").unwrap_err();
    assert!(matches!(refused, Error::AmbiguousName { .. }), "{refused:?}");
    assert!(refused.to_string().contains("domain 1 and domain 2"), "{refused}");
}
