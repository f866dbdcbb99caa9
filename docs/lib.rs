//! The programs on the pages of this folder, as documentation tests; and the schema of what commands print, for
//! their tests.

pub mod schema;

#[cfg(doctest)]
mod pages {
    #[doc = include_str!("from-kvm.md")]
    struct FromKvm;

    #[doc = include_str!("embedding.md")]
    struct Embedding;
}
