//! The `mqlink` command.
fn main() {}
