//! Ctrl-C typed at a terminal.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// What the program at the terminal does after the first Ctrl-C, before it ends.
const SAVING: Duration = Duration::from_secs(4);

/// The program at the terminal: waits for a signal, saves, ends.
#[test]
#[ignore = "run by the other test, at a terminal"]
fn program() {
    dcgan_cli::Logging::init(&dcgan_cli::LogArgs::default());
    let cancel = dcgan_cli::cancel_on_signals().unwrap();
    dcgan_cli::print_result("ready").unwrap();
    while !cancel.is_set() {
        sleep(Duration::from_millis(5));
    }
    sleep(SAVING);
    dcgan_cli::print_result("state written").unwrap();
}

/// `script` of util-linux runs a command at a terminal of its own, and types what it reads.
fn has_script() -> bool {
    let version = Command::new("script").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("util-linux"))
}

#[test]
fn only_a_late_second_ctrl_c_forces_the_end() {
    if !has_script() {
        eprintln!("skipped: this system has no script of util-linux");
        return;
    }
    let program = std::env::current_exe().unwrap();
    // Without exec, some shells wait for the program and end by the Ctrl-C that they have received too.
    let line = format!("exec '{}' --ignored --exact program --nocapture", program.display());
    // Pauses before each further Ctrl-C, and the exit code.
    for (pauses, code) in [(&[300, 300][..], 0), (&[2300], 130), (&[300, 2000], 130)] {
        let mut child = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .env_remove("RUST_LOG")
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let mut type_ctrl_c = || {
            keyboard.write_all(b"\x03").unwrap();
            keyboard.flush().unwrap();
        };
        let mut screen = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        while !text.contains("ready") {
            assert_ne!(screen.read_line(&mut text).unwrap(), 0, "{text}");
        }
        type_ctrl_c();
        for pause in pauses {
            sleep(Duration::from_millis(*pause));
            type_ctrl_c();
        }
        screen.read_to_string(&mut text).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code), "{pauses:?}: {text}");
        assert_eq!(text.contains("state written"), code == 0, "{pauses:?}: {text}");
        assert!(text.contains("another Ctrl-C, 2 s after the first"), "{text}");
    }
}
