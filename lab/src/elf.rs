//! What the lab needs to know of ELF files: which libraries a binary names, and which modules a
//! kernel module builds upon.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use object::{
    Endianness, Object as _, ObjectSection as _,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn as _, ElfFile, FileHeader as _},
};

/// Names of the shared libraries that a binary asks for; none if it is static.
pub(crate) fn needed(data: &[u8]) -> Result<Vec<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let Some((dynamic, link)) = sections.dynamic(endian, data)? else { return Ok(Vec::new()) };
    let strings = sections.strings(endian, data, link)?;
    let mut names = Vec::new();
    for entry in dynamic.iter().filter(|entry| entry.tag(endian) == DT_NEEDED) {
        let name = entry.string(endian, strings)?;
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Ok(names)
}

/// All libraries that `binaries` need, directly or through other libraries: name and file.
///
/// They are looked for in `folders`, and nowhere else.
pub(crate) fn libraries(
    binaries: &[PathBuf],
    folders: &[PathBuf],
) -> Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::<String, PathBuf>::new();
    let mut queue = binaries.to_vec();
    while let Some(file) = queue.pop() {
        let data = fs::read(&file).with_context(|| format!("{}: cannot read", file.display()))?;
        let names = needed(&data).with_context(|| format!("{}: not ELF", file.display()))?;
        for name in names {
            if found.contains_key(&name) {
                continue;
            }
            let path = find(&name, folders).with_context(|| {
                format!(
                    "{} needs {name}, and no package of the lab brings it: add its package",
                    file.display()
                )
            })?;
            queue.push(path.clone());
            found.insert(name, path);
        }
    }
    Ok(found)
}

fn find(name: &str, folders: &[PathBuf]) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.exists())
}

/// Names of the modules that must be in the kernel before this one.
pub(crate) fn module_dependencies(module: &[u8], path: &Path) -> Result<Vec<String>> {
    let file = ElfFile::<FileHeader64<Endianness>>::parse(module)
        .with_context(|| format!("{}: not a kernel module", path.display()))?;
    let section = file
        .section_by_name(".modinfo")
        .with_context(|| format!("{}: no .modinfo section", path.display()))?;
    Ok(parse_dependencies(section.data()?))
}

/// `.modinfo` holds `key=value` texts, each ended by a zero.
fn parse_dependencies(modinfo: &[u8]) -> Vec<String> {
    modinfo
        .split(|byte| *byte == 0)
        .filter_map(|entry| entry.strip_prefix(b"depends="))
        .flat_map(|list| list.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_a_comma_list() {
        let modinfo = b"license=GPL\0depends=xen-privcmd,mdev\0name=x\0depends=\0";
        assert_eq!(parse_dependencies(modinfo), ["xen-privcmd", "mdev"]);
    }

    #[test]
    fn this_very_test_needs_libc() {
        let data = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(needed(&data).unwrap().iter().any(|name| name.starts_with("libc.")));
    }

    #[test]
    fn a_missing_library_is_named() {
        let binary = std::env::current_exe().unwrap();
        let error = libraries(&[binary], &[]).unwrap_err();
        assert!(error.to_string().contains("no package of the lab brings it"), "{error}");
    }
}
