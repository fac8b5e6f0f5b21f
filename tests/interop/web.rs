//! `git http-backend` behind the two web servers that are set up with it most, with Basic credentials.

use std::fs;
use std::path::Path;

use needs::needs;

use crate::host::{Host, git_http_backend, open_to_all, unprivileged};
use crate::passes::whole_story;
use crate::scene::Scene;
use crate::servers::CANARY;

/// The user `me` with the password [`CANARY`].
const USERS: &str = "me:{SHA}onEI4G1DJLqFQnaRmq3k6UMm814=\n";

/// A scene whose upstream the server may write to, as another user.
fn scene() -> Scene {
    let scene = Scene::without_ours();
    scene.git_upstream(&["config", "core.sharedRepository", "0666"]);
    // A repository of another user is nobody's to use unless this is said.
    fs::write(scene.root().join("home/.gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
    open_to_all(&scene.upstream());
    let mut rights = fs::metadata(scene.root()).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut rights, 0o755);
    fs::set_permissions(scene.root(), rights).unwrap();
    scene
}

fn apache(root: &Path) -> Host {
    let mut host = Host::new();
    let folder = "/usr/lib/apache2/modules";
    let modules = [
        "mpm_prefork",
        "authn_core",
        "authz_core",
        "unixd",
        "auth_basic",
        "authn_file",
        "authz_user",
        "alias",
        "env",
        "setenvif",
        "cgi",
    ];
    let load = |name: &&str| Path::new(&format!("{folder}/mod_{name}.so")).exists();
    let loads: String = modules
        .iter()
        .filter(|name| load(name))
        .map(|name| format!("LoadModule {name}_module {folder}/mod_{name}.so\n"))
        .collect();
    let users = host.file("users", USERS);
    let config = format!(
        "ServerRoot {0}\nServerName 127.0.0.1\nListen 127.0.0.1:{1}\nPidFile {0}/pid\nErrorLog {0}/errors\n{loads}\
         SetEnv GIT_PROJECT_ROOT {2}\nSetEnv GIT_HTTP_EXPORT_ALL 1\nSetEnv GIT_CONFIG_COUNT 1\n\
         SetEnv GIT_CONFIG_KEY_0 safe.directory\nSetEnv GIT_CONFIG_VALUE_0 *\n\
         SetEnvIf Git-Protocol \".*\" GIT_PROTOCOL=$0\nScriptAlias /git/ {3}/\n\
         <Location /git/>\nAuthType Basic\nAuthName git\nAuthUserFile {4}\nRequire valid-user\n</Location>\n",
        host.path("").display(),
        host.port,
        root.display(),
        git_http_backend().display(),
        users.display(),
    );
    let config = host.file("apache.conf", &config);
    let mut command = unprivileged("apache2");
    command.arg("-DFOREGROUND").arg("-f").arg(config);
    host.start(&mut command, Host::listens);
    host
}

fn nginx(root: &Path) -> Host {
    let mut host = Host::new();
    let users = host.file("users", USERS);
    let socket = host.path("socket");
    let mut wrap = unprivileged("fcgiwrap");
    wrap.args(["-c", "2", "-s"]).arg(format!("unix:{}", socket.display()));
    host.start(&mut wrap, |host| host.path("socket").exists());
    let temporary: String = ["client_body", "fastcgi", "proxy", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", host.path(kind).display()))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/errors;\nevents {{}}\nhttp {{\naccess_log off;\n{temporary}\
         client_max_body_size 0;\nserver {{\nlisten 127.0.0.1:{1};\nauth_basic git;\nauth_basic_user_file {2};\n\
         location ~ ^/git(/.*)$ {{\nfastcgi_pass unix:{3};\nfastcgi_param SCRIPT_FILENAME {4};\nfastcgi_param PATH_INFO $1;\n\
         fastcgi_param GIT_PROJECT_ROOT {5};\nfastcgi_param GIT_HTTP_EXPORT_ALL 1;\nfastcgi_param REMOTE_USER $remote_user;\n\
         fastcgi_param QUERY_STRING $query_string;\nfastcgi_param REQUEST_METHOD $request_method;\n\
         fastcgi_param CONTENT_TYPE $content_type;\nfastcgi_param CONTENT_LENGTH $content_length;\n\
         fastcgi_param GIT_PROTOCOL $http_git_protocol;\nfastcgi_param GIT_CONFIG_COUNT 1;\n\
         fastcgi_param GIT_CONFIG_KEY_0 safe.directory;\nfastcgi_param GIT_CONFIG_VALUE_0 *;\n}}\n}}\n}}\n",
        host.path("").display(),
        host.port,
        users.display(),
        socket.display(),
        git_http_backend().display(),
        root.display(),
    );
    let config = host.file("nginx.conf", &config);
    let mut command = unprivileged("nginx");
    command.arg("-e").arg(host.path("errors")).arg("-c").arg(config);
    host.start(&mut command, Host::listens);
    host
}

fn with_credentials(scene: &Scene, host: &Host) {
    let url = format!("http://me@127.0.0.1:{}/git/upstream.git", host.port);
    scene.env("GIT_SYNC_TOKEN", CANARY);
    whole_story(scene, &url);
    // A push that is not held in one piece.
    scene.tick_with("head -c 3000000 /dev/urandom >state/large").exits(0).says("pushed").ours_equals_upstream();
    scene.env("GIT_SYNC_TOKEN", "another-one").sync().exits(1).says("error").logs("401").logs("GIT_SYNC_TOKEN");
    scene.env("GIT_SYNC_TOKEN", "").sync().exits(1).says("error").logs("no credentials are set");
}

#[needs(apache2)]
#[test]
fn apache2() {
    let scene = scene();
    with_credentials(&scene, &apache(scene.root()));
}

#[needs(nginx, fcgiwrap)]
#[test]
fn nginx_with_fcgiwrap() {
    let scene = scene();
    with_credentials(&scene, &nginx(scene.root()));
}
