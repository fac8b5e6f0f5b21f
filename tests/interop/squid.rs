//! A stock squid: it lets CONNECT through to the port of https alone.

use needs::needs;

use crate::host::{Host, unprivileged};
use crate::passes::whole_story;
use crate::scene::Scene;
use crate::servers::CANARY;
use crate::servers::http::HttpServer;

/// `more`: lines before the rules.
fn squid(more: &str) -> Host {
    let mut host = Host::new();
    // The proxy looks the name up, and nobody else could.
    let hosts = host.file("hosts", "127.0.0.1 git.example\n");
    let config = format!(
        "http_port 127.0.0.1:{1}\nhosts_file {2}\npid_filename none\naccess_log stdio:{0}/access\ncache_log {0}/cache\n\
         cache deny all\ncoredump_dir {0}\nnetdb_filename none\nshutdown_lifetime 0\npinger_enable off\n\
         acl SSL_ports port 443\nacl Safe_ports port 80\nacl Safe_ports port 443\nacl Safe_ports port 1025-65535\n{more}\
         http_access deny !Safe_ports\nhttp_access deny CONNECT !SSL_ports\nhttp_access allow localhost\nhttp_access deny all\n",
        host.path("").display(),
        host.port,
        hosts.display(),
    );
    let config = host.file("squid.conf", &config);
    let mut command = unprivileged("squid");
    command.args(["-N", "-f"]).arg(config);
    host.start(&mut command, Host::listens);
    host
}

fn served(scene: &Scene) -> (HttpServer, String) {
    scene.git_upstream(&["config", "http.receivepack", "true"]);
    let server = HttpServer::over(scene.root(), false);
    let url = format!("http://git.example:{}/upstream.git", server.address.port());
    (server, url)
}

#[needs(squid)]
#[test]
fn plain_http_through_a_stock_squid() {
    let scene = Scene::without_ours();
    let (_server, url) = served(&scene);
    let host = squid("");
    scene.env("http_proxy", &format!("http://127.0.0.1:{}", host.port));
    whole_story(&scene, &url);
    assert!(!host.text("access").contains("CONNECT"), "{}", host.text("access"));
    assert!(host.text("access").contains("git-receive-pack"), "{}", host.text("access"));
    // A tunnel to another port than that of https is refused.
    scene.git_ours(&["remote", "set-url", "origin", &url.replace("http:", "https:")]);
    scene.env("https_proxy", &format!("http://127.0.0.1:{}", host.port));
    scene.sync().exits(1).says("error").logs(&format!("the proxy http://127.0.0.1:{}", host.port)).logs("403");
}

#[needs(squid)]
#[test]
fn a_squid_that_wants_credentials() {
    let scene = Scene::without_ours();
    let (_server, url) = served(&scene);
    let folder = tempfile::tempdir().unwrap();
    let asker = folder.path().join("asker");
    let script =
        format!("#!/bin/sh\nwhile read -r line; do [ \"$line\" = 'me {CANARY}' ] && echo OK || echo ERR; done\n");
    std::fs::write(&asker, script).unwrap();
    for path in [folder.path(), &asker] {
        let mut rights = std::fs::metadata(path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
        std::fs::set_permissions(path, rights).unwrap();
    }
    let more = format!(
        "auth_param basic program {}\nacl known proxy_auth REQUIRED\nhttp_access deny !known\n",
        asker.display()
    );
    let host = squid(&more);
    let proxy = |userinfo: &str| format!("http://{userinfo}127.0.0.1:{}", host.port);
    scene.env("http_proxy", &proxy(&format!("me:{CANARY}@")));
    whole_story(&scene, &url);
    for userinfo in ["me:another-one@", ""] {
        scene.env("http_proxy", &proxy(userinfo)).sync().exits(1).says("error").logs("407").logs("the proxy http://");
    }
}
