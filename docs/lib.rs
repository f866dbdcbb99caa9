//! The programs on the pages of this folder, as documentation tests.

#[cfg(doctest)]
mod pages {
    #[doc = include_str!("from-kvm.md")]
    struct FromKvm;

    #[doc = include_str!("embedding.md")]
    struct Embedding;
}
