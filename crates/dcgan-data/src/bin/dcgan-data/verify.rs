//! `dcgan-data verify`: files against the publisher's hashes.

use anyhow::bail;
use dcgan_cli::{Outcome, print_result};
use dcgan_data::{Finding, Verified, verify};
use serde_json::json;

use crate::args::Verify;

pub(crate) fn verify_command(args: &Verify) -> anyhow::Result<Outcome> {
    let (manifest, files) = verify(&args.path)?;
    if args.json {
        let line = json!({ "name": manifest.name, "license": manifest.license, "files": files });
        print_result(&line.to_string())?;
    } else {
        print_result(&format!("{}: {}", manifest.name, manifest.license))?;
        for file in &files {
            print_result(&format!("{:<28} {}", file.file, describe(file.finding)))?;
        }
    }
    let count = |finding: Finding| files.iter().filter(|file: &&Verified| file.finding == finding).count();
    match count(Finding::Differs) {
        0 => Ok(Outcome::Done),
        differing => bail!(
            "{differing} of {} files differ from the publisher's; get them again: {}",
            files.len(),
            manifest.get
        ),
    }
}

fn describe(finding: Finding) -> &'static str {
    match finding {
        Finding::Ok => "ok",
        Finding::OkContent => "ok (compressed anew or unpacked; the content is the publisher's)",
        Finding::Differs => "differs",
        Finding::Missing => "missing",
        Finding::NotRecorded => "not recorded (its hash is not known here)",
    }
}
