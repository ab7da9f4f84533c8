//! The `calos` binary.

/// Commands and rows are made of many short-lived texts; with this allocator they cost a fifth less CPU than with glibc's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    calos_api::cli::main()
}
