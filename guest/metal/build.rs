//! Links without an operating system.

fn main() {
    let variable = |name| std::env::var(name).expect("cargo names the folder and the architecture");
    let folder = variable("CARGO_MANIFEST_DIR");
    // Xen's tools load an ELF file on x86, and a flat image on Arm.
    let (layout, format) = match variable("CARGO_CFG_TARGET_ARCH").as_str() {
        "aarch64" => ("link.aarch64.ld", "-Wl,--oformat=binary"),
        _ => ("link.ld", "-Wl,-n"),
    };
    let script = format!("-T{folder}/{layout}");
    for argument in
        ["-nostartfiles", "-nostdlib", "-static", "-Wl,--build-id=none", format, &script]
    {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    println!("cargo::rerun-if-changed={layout}");
    println!("cargo::rerun-if-changed=build.rs");
}
