//! The binary `tidegate`. Everything is in the library.

fn main() -> std::process::ExitCode {
    tidegate::main()
}
