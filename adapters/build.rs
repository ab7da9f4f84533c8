//! Compiles the crate again when a migration is added: the macro that embeds them sees only the files it read before.

fn main() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let mut out = std::io::stdout();
    // A build script speaks to cargo on its standard output.
    let _ = std::io::Write::write_all(&mut out, format!("cargo:rerun-if-changed={folder}\n").as_bytes());
}
