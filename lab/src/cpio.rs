//! A writer of initramfs archives (cpio, `newc`; the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`).
//!
//! Archives are reproducible: no times, no owners, inodes counted from one. The kernel reads any
//! number of them one after the other, later files replacing earlier ones.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// An archive that grows.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file with these permissions (`0o755`); its folders come with it.
    ///
    /// # Errors
    ///
    /// The path is not a plain relative one, or the file is larger than the format can say.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<()> {
        self.parents(path)?;
        self.entry(path, REGULAR | permissions, (0, 0), content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    ///
    /// As for [`Archive::file`].
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.parents(path)?;
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a folder and those above it.
    ///
    /// # Errors
    ///
    /// As for [`Archive::file`].
    pub fn folder(&mut self, path: &str) -> Result<()> {
        self.parents(&format!("{path}/x"))
    }

    /// Adds a character device.
    ///
    /// # Errors
    ///
    /// As for [`Archive::file`].
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.parents(path)?;
        self.entry(path, CHARACTER | 0o600, (major, minor), &[])
    }

    /// Ends the archive. Its length is a multiple of four, so another one may follow.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, (0, 0), 0);
        self.bytes
    }

    fn parents(&mut self, path: &str) -> Result<()> {
        let plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        ensure!(plain, "{path:?}: a path in the initramfs is relative and plain, like bin/tool");
        let folders: Vec<String> = path
            .match_indices('/')
            .filter_map(|(end, _)| path.get(..end))
            .map(str::to_owned)
            .collect();
        for folder in folders {
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, DIRECTORY | 0o755, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len());
        ensure!(size.is_ok(), "{path}: {} bytes do not fit into a cpio archive", content.len());
        self.inode += 1;
        self.header(path, self.inode, mode, device, size.unwrap_or_default());
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn header(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), size: u32) {
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, mtime, size, device's two, rdev's two, name's size, check
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: name, mode, content.
    fn read(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |index: usize| {
                let text = str::from_utf8(&bytes[6 + 8 * index..14 + 8 * index]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name = str::from_utf8(&bytes[110..110 + name_size - 1]).unwrap().to_owned();
            let start = (110 + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(bytes.len(), start);
                return entries;
            }
            entries.push((name, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn files_bring_their_folders_once() {
        let mut archive = Archive::new();
        archive.file("bin/one", 0o755, b"1").unwrap();
        archive.file("bin/two", 0o644, b"22222").unwrap();
        archive.symlink("usr/sbin/xl", "../bin/xl").unwrap();
        let entries = read(&archive.finish());
        let names: Vec<&str> = entries.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["bin", "bin/one", "bin/two", "usr", "usr/sbin", "usr/sbin/xl"]);
        assert_eq!(entries[1], ("bin/one".to_owned(), 0o100_755, b"1".to_vec()));
        assert_eq!(entries[5], ("usr/sbin/xl".to_owned(), 0o120_777, b"../bin/xl".to_vec()));
    }

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let build = || {
            let mut archive = Archive::new();
            archive.file("init", 0o755, b"#!/bin/sh\n").unwrap();
            archive.character_device("dev/console", 5, 1).unwrap();
            archive.finish()
        };
        assert_eq!(build(), build());
        assert_eq!(build().len() % 4, 0);
    }

    #[test]
    fn paths_are_relative_and_plain() {
        for path in ["/bin/x", "bin//x", "../x", "bin/", ""] {
            assert!(Archive::new().file(path, 0o644, b"").is_err(), "{path:?}");
        }
    }
}
