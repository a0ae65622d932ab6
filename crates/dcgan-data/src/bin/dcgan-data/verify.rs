//! `dcgan-data verify`: compares files with published hashes.

use anyhow::bail;
use dcgan_cli::{Outcome, print_result};
use dcgan_data::{FileStatus, VerifiedFile, verify};
use serde_json::json;

use crate::args::Verify;

pub(crate) fn verify_command(args: &Verify) -> anyhow::Result<Outcome> {
    let (manifest, files) = verify(&args.path)?;
    if args.json {
        let line = json!({
            "name": manifest.name,
            "license": manifest.license,
            "licence": manifest.license, // old name of `license`, for scripts
            "files": files,
        });
        print_result(&line.to_string())?;
    } else {
        print_result(&format!("{}: {}", manifest.name, manifest.license))?;
        for file in &files {
            print_result(&format!("{:<28} {}", file.file, describe(file.status)))?;
        }
    }
    let count =
        |status: FileStatus| files.iter().filter(|file: &&VerifiedFile| file.status == status).count();
    let (differing, verified) =
        (count(FileStatus::Differs), count(FileStatus::Ok) + count(FileStatus::OkContent));
    if differing > 0 {
        bail!(
            "{differing} of {} files differ from the published ones; download them again: {}",
            files.len(),
            manifest.get
        );
    }
    if verified == 0 {
        bail!("nothing was verified: no hash is known for the files in {}", args.path.display());
    }
    let unknown = count(FileStatus::NotRecorded);
    if unknown > 0 && !args.json {
        print_result(&format!("{verified} files verified; for {unknown} no hash is known"))?;
    }
    Ok(Outcome::Done)
}

fn describe(status: FileStatus) -> &'static str {
    match status {
        FileStatus::Ok => "ok",
        FileStatus::OkContent => "ok (recompressed or unpacked; the content matches)",
        FileStatus::Differs => "differs",
        FileStatus::Missing => "missing",
        FileStatus::NotRecorded => "not recorded (the manifest has no hash for it)",
    }
}
