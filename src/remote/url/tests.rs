//! Each form of URL, and those that are refused.

use super::*;

fn parse(url: &str) -> Remote {
    Remote::parse(url, Path::new("/work tree")).unwrap()
}

fn http(url: &str) -> HttpUrl {
    match parse(url) {
        Remote::Http(http) => http,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_form_is_read() {
    assert_eq!(parse("/srv/a.git"), Remote::Path("/srv/a.git".into()));
    assert_eq!(parse("../a.git"), Remote::Path("/work tree/../a.git".into()));
    assert_eq!(parse("./a:b"), Remote::Path("/work tree/./a:b".into()));
    assert_eq!(parse("file:///srv/a%20b.git"), Remote::Path("/srv/a b.git".into()));
    assert_eq!(parse("file://localhost/srv/a"), Remote::Path("/srv/a".into()));
    let ssh = |user: Option<&str>, host: &str, port, path: &str| {
        Remote::Ssh(SshUrl { user: user.map(str::to_owned), host: host.into(), port, path: path.into() })
    };
    assert_eq!(parse("git@github.com:o/r.git"), ssh(Some("git"), "github.com", None, "o/r.git"));
    assert_eq!(parse("alias:~/r.git"), ssh(None, "alias", None, "~/r.git"));
    assert_eq!(parse("u@[::1]:/r"), ssh(Some("u"), "::1", None, "/r"));
    assert_eq!(parse("[u@h:2222]:r"), ssh(Some("u"), "h", Some(2222), "r"));
    assert_eq!(parse("ssh://u@h:22/r%20s"), ssh(Some("u"), "h", Some(22), "/r s"));
    assert_eq!(parse("ssh://u:secretsecret@[::1]/~me/r"), ssh(Some("u"), "::1", None, "~me/r"));
    let git = Remote::Git(GitUrl { host: "h".into(), port: 9418, path: "/r".into() });
    assert_eq!(parse("git://h/r"), git);
}

#[test]
fn http_urls_keep_the_secret_apart() {
    let url = http("https://me:p%40ss@Example.com/o/r.git/");
    assert_eq!(url.origin.to_string(), "https://example.com");
    assert_eq!((url.user.as_deref(), url.secret.as_deref()), (Some("me"), Some("p@ss")));
    assert_eq!(url.join("info/refs"), "https://example.com/o/r.git/info/refs");
    assert_eq!(http("http://[::1]:8080/r").origin.to_string(), "http://[::1]:8080");
    for (host, here) in [
        ("[::1]:8080", true),
        ("[0:0:0:0:0:0:0:1]", true),
        ("127.0.0.1", true),
        ("127.8.9.10", true),
        ("LocalHost", true),
        ("localhost.example", false),
        ("127.0.0.1.example.com", false),
        ("127.0.0.1:1@example.com", false),
        ("0.0.0.0", false),
        ("[::]", false),
        ("[::2]", false),
        ("10.0.0.1", false),
    ] {
        assert_eq!(http(&format!("http://{host}/r")).origin.is_loopback(), here, "{host}");
    }
    assert_eq!(http("https://h/ä b").path, "/%C3%A4%20b");
}

#[test]
fn reading_a_url_leaves_the_redactor_as_it_is() {
    for url in ["https://me:only-read-http@h/r", "ssh://me:only-read-ssh@h/r"] {
        parse(url);
    }
    assert_eq!(redact::text(b"only-read-http, only-read-ssh"), "only-read-http, only-read-ssh");
    split_url_secret("https://me:taken-out-http@h/r");
    split_url_secret("ssh://me:taken-out-ssh@h/r");
    assert_eq!(redact::text(b"taken-out-http, taken-out-ssh"), "***, ***");
}

#[test]
fn a_secret_is_taken_out_of_a_url() {
    let split = |url: &str| {
        let (clean, found) = split_url_secret(url);
        (clean, found.map(|(u, s)| format!("{u}={s}")).unwrap_or_default())
    };
    let is = |clean: &str, found: &str| (clean.to_owned(), found.to_owned());
    assert_eq!(split("https://x-access-token:tok123@h/o/r.git"), is("https://h/o/r.git", "x-access-token=tok123"));
    assert_eq!(split("https://ghp_abcdef@h/r"), is("https://h/r", "x-access-token=ghp_abcdef"));
    assert_eq!(split("https://oldtoken:x-oauth-basic@h/r"), is("https://h/r", "x-access-token=oldtoken"));
    assert_eq!(split("https://alice@h/r"), is("https://alice@h/r", ""));
    assert_eq!(split("ssh://git:pw1234@h:2/r"), is("ssh://git@h:2/r", "git=pw1234"));
    assert_eq!(split("git@h:r"), is("git@h:r", ""));
}

#[test]
fn a_url_without_its_scheme_is_no_path() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["github.com/you/state.git", "git.example.org/r", "GitHub.com/you/state"] {
        let error = Remote::parse(url, folder.path()).unwrap_err();
        assert!(error.kind == Kind::Refused && error.next.contains(&format!("mean https://{url}?")), "{error}");
        std::fs::create_dir_all(folder.path().join(url)).unwrap();
        assert_eq!(Remote::parse(url, folder.path()).unwrap(), Remote::Path(folder.path().join(url)));
    }
    for path in
        ["./github.com/you", "../github.com/you", "/github.com/you", "state.git/x", "a/github.com", "v1.2/r", ".x/r"]
    {
        assert!(Remote::parse(path, folder.path()).is_ok(), "{path}");
    }
}

#[test]
fn what_would_be_an_option_or_a_program_is_refused() {
    for url in [
        "ssh://-oProxyCommand=x/r",
        "-oProxyCommand=x:r",
        "ssh://-u@h/r",
        "h:-r",
        "ext::sh -c x",
        "ssh:///r",
        "https://",
        "https:///r",
        "https://h:0/r",
        "https://h:99999/r",
        "https://h/r?x",
        "https://h h/r",
        "ftp://h/r",
        "",
        "a\nb",
        "file://other/r",
        "ssh://h/%00",
        "git://h",
        "https://[::1/r",
        "https://a\u{202e}b/r",
    ] {
        let refused = Remote::parse(url, Path::new("/"));
        assert!(refused.is_err(), "{url:?} gave {refused:?}");
    }
}
