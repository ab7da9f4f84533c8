//! The `calos` binary.

fn main() -> std::process::ExitCode {
    calos_api::cli::main()
}
