//! The `mqlink` command.

use std::process::ExitCode;

/// glibc's allocator gives memory back too seldom for a process whose load comes and goes.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    mqlink::cli::main()
}
