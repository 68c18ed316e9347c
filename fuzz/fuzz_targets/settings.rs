//! Settings documents of whatever bytes: reading and checking never panic, and what is accepted is written and read back
//! as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mqlink_fuzz::settings::parse;

fuzz_target!(|input: &[u8]| {
    let parsed = match parse(input) {
        Ok(parsed) => parsed,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let is_valid = parsed.settings.check().is_ok();
    let bytes = serde_json::to_vec(&parsed.settings).expect("settings are JSON");
    let again = parse(&bytes).expect("what was written can be read");
    assert!(again.unknown_fields.is_empty(), "{:?}", again.unknown_fields);
    assert!(again.settings == parsed.settings && again.settings.check().is_ok() == is_valid);
});
