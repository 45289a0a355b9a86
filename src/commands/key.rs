//! `lfm-serve key`.

use std::{num::NonZeroU32, process::ExitCode};

use clap::Args;

use crate::keys::NewKey;

/// Settings of `key`.
#[derive(Debug, Args)]
#[command(
    after_help = "The line for the file goes to standard output, the key itself, which is written nowhere else, to \
                  standard error:\n\n  lfm-serve key alice >> keys.txt\n  lfm-serve serve --api-keys-file keys.txt"
)]
pub(super) struct KeyArgs {
    /// Whose key it is: this name stands in the access log. Letters, digits, `-`, `_` and `.`.
    name: String,

    /// Images that the key may have in flight at once (its max_in_flight). Default: as many as the server takes.
    #[arg(long, env = "LFM_CAP", value_name = "N")]
    cap: Option<NonZeroU32>,

    /// Its share while clients compete for the machine: a key of weight 2 gets twice what a key of weight 1 gets.
    /// Default: 1.
    #[arg(long, env = "LFM_WEIGHT", value_name = "N")]
    weight: Option<NonZeroU32>,
}

pub(super) fn run(args: &KeyArgs) -> Result<ExitCode, anyhow::Error> {
    let made = NewKey::make(&args.name, args.cap, args.weight)?;
    super::print_line(&made.line)?;
    // After the line: a key whose line could not be written is never seen.
    eprintln!("The key of {}, shown only now:\n{}", args.name, made.key);
    Ok(ExitCode::SUCCESS)
}
