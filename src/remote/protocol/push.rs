//! A push: one command, which names the commit to replace and the new one, the pack, and the server's report.

use std::io::Read;

use git2::Oid;

use super::{Capabilities, MOST_SAID, Sideband};
use crate::remote::pktline::{Bad, Packet, Packets, encode, refusal};

/// What a push does to a reference.
#[derive(Clone, Copy, Debug)]
pub struct Update<'a> {
    /// Its full name.
    pub refname: &'a str,
    /// What it is now. The server refuses the update of a reference that has moved.
    pub old: Option<Oid>,
    /// What it becomes.
    pub new: Oid,
}

/// What the server reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Why it could not take the pack.
    pub unpack: Option<String>,
    /// Whether it has updated the reference, or why not; `None` if it did not say.
    pub update: Option<Result<(), String>>,
    /// What it said besides, such as the output of its hooks.
    pub said: String,
}

/// The command, which comes before the pack.
pub fn command(update: &Update<'_>, capabilities: &Capabilities) -> Vec<u8> {
    let mut words = String::new();
    let report = ["report-status-v2", "report-status"].into_iter().find(|word| capabilities.has(word));
    let others = ["side-band-64k", "quiet"].into_iter().filter(|word| capabilities.has(word));
    for word in report.into_iter().chain(others) {
        words.push(' ');
        words.push_str(word);
    }
    if capabilities.has("object-format") {
        words.push_str(" object-format=sha1");
    }
    if capabilities.has("agent") {
        words.push_str(&format!(" agent={}", super::AGENT));
    }
    let (old, new) = (update.old.unwrap_or(Oid::ZERO_SHA1), update.new);
    let mut command = Vec::new();
    encode(&mut command, format!("{old} {new} {}\0{words}", update.refname).as_bytes());
    command.extend_from_slice(b"0000");
    command
}

/// Reads the report.
///
/// # Errors
/// What the server refused with, or an answer that is none.
pub fn read_report<R: Read>(
    packets: &mut Packets<R>,
    capabilities: &Capabilities,
    refname: &str,
) -> Result<Report, Bad> {
    if !capabilities.has("report-status") && !capabilities.has("report-status-v2") {
        return Ok(Report::default());
    }
    if !capabilities.has("side-band-64k") {
        return lines(packets, refname);
    }
    let mut bands = Sideband::new(packets);
    let read = lines(&mut Packets::new(&mut bands), refname);
    // The server's hooks may go on after the report.
    let said = match &read {
        Ok(report) if report.update.is_some() => drain(&mut bands),
        _ => Ok(()),
    };
    let words = String::from_utf8_lossy(&bands.said).into_owned();
    match (read, said) {
        (Ok(report), _) => Ok(Report { said: words, ..report }),
        (Err(Bad::Malformed(_)), _) if !words.is_empty() => Err(Bad::Refused(words)),
        (Err(bad), _) => Err(bad),
    }
}

/// Reads to the end of the sideband.
fn drain(bands: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(bands, &mut std::io::sink()).map(drop)
}

fn lines<R: Read>(packets: &mut Packets<R>, refname: &str) -> Result<Report, Bad> {
    let mut report = Report::default();
    // Whether the last line was about our reference: options follow it.
    let mut is_ours = false;
    loop {
        match packets.packet()? {
            Some(Packet::Flush) => return Ok(report),
            Some(Packet::Data(line)) => {
                refusal(line)?;
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let line = String::from_utf8_lossy(line.get(..MOST_SAID).unwrap_or(line));
                if let Some(result) = line.strip_prefix("unpack ") {
                    report.unpack = Some(result.to_owned()).filter(|result| result != "ok");
                } else if line.strip_prefix("ok ") == Some(refname) {
                    report.update = Some(Ok(()));
                } else if let Some((name, why)) = line.strip_prefix("ng ").and_then(|rest| rest.split_once(' ')) {
                    if name == refname {
                        report.update = Some(Err(why.to_owned()));
                    }
                } else if let Some(name) = line.strip_prefix("option refname ").filter(|name| *name != refname)
                    && is_ours
                {
                    // A hook (`proc-receive`) may put the commit elsewhere, and says ok.
                    report.update = Some(Err(format!("the server put the commit at {name}, not at {refname}")));
                }
                if !line.starts_with("option ") {
                    is_ours = line.strip_prefix("ok ") == Some(refname);
                }
            }
            _ => return Err(Bad::Malformed("the report has no end".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const MAIN: &str = "refs/heads/main";

    fn packets(lines: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        lines.iter().for_each(|line| encode(&mut out, line));
        out.extend_from_slice(b"0000");
        out
    }

    fn report(bytes: &[u8], capabilities: &str) -> Result<Report, Bad> {
        read_report(&mut Packets::new(bytes), &Capabilities::parse(capabilities.as_bytes()), MAIN)
    }

    #[test]
    fn the_command_names_the_commit_to_replace() {
        let [old, new] = ["1", "2"].map(|digit| Oid::from_str(&digit.repeat(40)).unwrap());
        let all = Capabilities::parse(
            b"report-status report-status-v2 delete-refs side-band-64k quiet object-format=sha1 agent=x",
        );
        let text = |old, capabilities: &Capabilities| {
            let command = command(&Update { refname: MAIN, old, new }, capabilities);
            String::from_utf8(command).unwrap()
        };
        let expected =
            format!("{old} {new} {MAIN}\0 report-status-v2 side-band-64k quiet object-format=sha1 agent=git/");
        assert!(text(Some(old), &all).contains(&expected), "{}", text(Some(old), &all));
        let first = text(None, &Capabilities::default());
        assert_eq!(first, format!("0066{} {new} {MAIN}\x000000", "0".repeat(40)));
    }

    #[test]
    fn a_commit_that_the_server_put_elsewhere_is_not_pushed() {
        let elsewhere = packets(&[b"unpack ok\n", b"ok refs/heads/main\n", b"option refname refs/changes/1\n"]);
        let read = report(&elsewhere, "report-status-v2").unwrap();
        assert!(read.update.unwrap().unwrap_err().contains("refs/changes/1"));
        let other = packets(&[
            b"unpack ok\n",
            b"ok refs/heads/a\n",
            b"option refname refs/changes/1\n",
            b"ok refs/heads/main\n",
        ]);
        assert_eq!(report(&other, "report-status-v2").unwrap().update, Some(Ok(())));
        let longer = packets(&[b"unpack ok\n", b"ng refs/heads/main-2 no\n", b"ok refs/heads/main\n"]);
        assert_eq!(report(&longer, "report-status").unwrap().update, Some(Ok(())));
    }

    #[test]
    fn a_report_is_read_with_and_without_bands() {
        let ok = packets(&[
            b"unpack ok\n",
            b"ok refs/heads/other\n",
            b"ok refs/heads/main\n",
            b"option refname refs/heads/main\n",
        ]);
        let taken = Report { update: Some(Ok(())), ..Report::default() };
        assert_eq!(report(&ok, "report-status").unwrap(), taken);
        let mut banded = packets(&[&[b"\x02hooks say \xfc\n", &b""[..]].concat(), &[b"\x01", &ok[..9]].concat()]);
        banded.truncate(banded.len() - 4);
        banded.extend(packets(&[&[b"\x01", &ok[9..]].concat(), b"\x02later"]));
        let with_words = Report { said: "hooks say \u{fffd}\nlater".to_owned(), ..taken };
        assert_eq!(report(&banded, "report-status side-band-64k").unwrap(), with_words);
        let ng = packets(&[b"unpack index-pack failed\n", b"ng refs/heads/main unpacker \xfcrror\n"]);
        let refused = report(&ng, "report-status").unwrap();
        assert_eq!(refused.unpack.as_deref(), Some("index-pack failed"));
        assert_eq!(refused.update, Some(Err("unpacker \u{fffd}rror".to_owned())));
        assert_eq!(report(b"", "delete-refs").unwrap(), Report::default(), "a server that does not report");
    }

    #[test]
    fn a_report_that_breaks_off_is_none() {
        for bytes in [&b""[..], b"000eunpack ok\n", b"0009ERR x", b"000d\x03no room"] {
            assert!(report(bytes, "report-status side-band-64k").is_err(), "{bytes:?}");
        }
        let said = packets(&[b"\x02no such key"]);
        assert!(
            matches!(report(&said, "report-status side-band-64k"), Err(Bad::Refused(words)) if words == "no such key")
        );
    }
}
