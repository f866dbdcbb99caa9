//! Links without an operating system.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo names the folder");
    let script = format!("-T{folder}/link.ld");
    for argument in
        ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", "-Wl,-n", &script]
    {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed=link.ld");
    println!("cargo::rerun-if-changed=build.rs");
}
