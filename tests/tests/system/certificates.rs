//! Certificates on disk: renewed in every way that tools have, broken in every way that tools have, and seen from
//! outside all the while.

use std::path::Path;

use http::StatusCode;
use tidegate_tests::certs::{Authority, Identity};
use tidegate_tests::client::{Client, Tls, get};
use tidegate_tests::gateway::{Gateway, Setup};
use tidegate_tests::upstream::Upstream;
use tidegate_tests::wait::until;

const LISTENER: &str = "[[server.tls]]\nlisten = [\"127.0.0.1:0\"]\ncertificate = \"live/cert.pem\"\nkey = \"live/cert.key\"";

/// A proxy with the certificate of its folder `live`.
async fn gateway(upstream: &Upstream, identity: &Identity) -> Gateway {
    Setup::before(upstream)
        .file("live/cert.pem", &identity.certificate)
        .file("live/cert.key", &identity.key)
        .toml(LISTENER)
        .start()
        .await
}

/// Puts a file in place whole, as careful programs do.
fn put(gateway: &Gateway, name: &str, text: &str) {
    let folder = gateway.folder().join("live");
    let draft = folder.join(".draft");
    std::fs::write(&draft, text).unwrap();
    std::fs::rename(draft, folder.join(name)).unwrap();
}

async fn shown(gateway: &Gateway, authority: &Authority) -> Vec<u8> {
    let tls = Tls::connect(gateway.https(), "localhost", authority.client(&[])).await;
    tls.unwrap().certificate()
}

async fn until_shown(gateway: &Gateway, authority: &Authority, identity: &Identity) {
    until("the new certificate", async || {
        shown(gateway, authority).await == identity.der()
    })
    .await;
}

/// What `/config` says of the latest reading.
async fn standing(gateway: &Gateway) -> (String, String) {
    let shown = gateway.admin("/config").await.json();
    let text = |key: &str| shown["reload"][key].to_string();
    (
        shown["reload"]["state"].as_str().unwrap().to_owned(),
        text("mistakes"),
    )
}

#[tokio::test]
async fn a_bad_renewal_leaves_the_old_one_and_is_seen_in_log_figures_and_admin() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let good = authority.issue(&["localhost"]);
    let other = authority.issue(&["localhost"]);
    let expired = authority.issue_until(&["localhost"], 2020);
    let gateway = gateway(&upstream, &good).await;
    let mut open = Client::tls(gateway.https(), "localhost", authority.client(&["h2"]))
        .await
        .unwrap();
    let live = gateway.folder().join("live");
    let half = &other.certificate[..other.certificate.len() / 2];
    let spoil: [(&str, &dyn Fn(), &str); 6] = [
        (
            "a key that is another certificate's",
            &|| put(&gateway, "cert.key", &other.key),
            "does not belong to the certificate",
        ),
        (
            "half a certificate",
            &|| put(&gateway, "cert.pem", half),
            "cert.pem",
        ),
        (
            "nothing in the file",
            &|| put(&gateway, "cert.pem", ""),
            "holds no certificate",
        ),
        (
            "no file",
            &|| std::fs::remove_file(live.join("cert.pem")).unwrap(),
            "can't be read",
        ),
        (
            "a folder in its place",
            &|| {
                std::fs::remove_file(live.join("cert.pem")).unwrap();
                std::fs::create_dir(live.join("cert.pem")).unwrap();
            },
            "can't be read",
        ),
        (
            "one that has expired",
            &|| {
                put(&gateway, "cert.key", &expired.key);
                put(&gateway, "cert.pem", &expired.certificate);
            },
            "has expired",
        ),
    ];
    for (what, spoil, said) in spoil {
        spoil();
        until(&format!("the refusal of {what}"), async || {
            let (state, mistakes) = standing(&gateway).await;
            state == "refused" && mistakes.contains(said)
        })
        .await;
        gateway.logged(&["ERROR", said]).await;
        assert_eq!(
            gateway.metric("tidegate_configuration_up", &[]).await,
            0.0,
            "{what}"
        );
        assert_eq!(shown(&gateway, &authority).await, good.der(), "{what}");
        assert_eq!(open.send(get("/")).await.status, StatusCode::OK, "{what}");
        // Put right again.
        let _ = std::fs::remove_dir(live.join("cert.pem"));
        put(&gateway, "cert.key", &good.key);
        put(&gateway, "cert.pem", &good.certificate);
        until(&format!("{what} to be forgiven"), async || {
            standing(&gateway).await.0 == "ok"
        })
        .await;
        assert_eq!(
            gateway.metric("tidegate_configuration_up", &[]).await,
            1.0,
            "{what}"
        );
    }
    let failed = [("result", "failed")];
    assert!(gateway.metric("tidegate_reloads_total", &failed).await >= 6.0);
    assert!(
        gateway
            .metric("tidegate_reload_time_seconds", &failed)
            .await
            > 1.0e9
    );
}

#[tokio::test]
async fn the_date_of_expiry_is_a_figure_and_stands_in_admin() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, &authority.issue_until(&["localhost"], 2050)).await;
    let file = gateway.folder().join("live/cert.pem");
    let series = async || {
        let text = gateway.admin("/metrics").await.text();
        let line = text
            .lines()
            .find(|line| line.starts_with("tidegate_certificate_expiry_seconds{"))
            .map(str::to_owned);
        line.unwrap()
    };
    let line = series().await;
    assert!(line.contains("live/cert.pem"), "{line}");
    // 2050-01-01T00:00:00Z, the first that is written with four digits of the year.
    assert!(line.ends_with(" 2524608000"), "{line}");
    let shown = gateway.admin("/config").await.json();
    let certificate = &shown["server"]["tls"][0]["certificates"][0];
    assert_eq!(certificate["expires"], "2050-01-01T00:00:00Z");
    assert!(certificate["file"].as_str().unwrap().ends_with("cert.pem"));
    let renewed = authority.issue_until(&["localhost"], 2049);
    put(&gateway, "cert.key", &renewed.key);
    put(&gateway, "cert.pem", &renewed.certificate);
    until("the new date", async || {
        series().await.ends_with(" 2493072000")
    })
    .await;
    assert!(file.is_file());
}

#[tokio::test]
async fn a_start_with_an_expired_certificate_is_warned_of() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, &authority.issue_until(&["localhost"], 2020)).await;
    gateway
        .logged(&["WARN", "cert.pem expired at 2020-01-01"])
        .await;
    // It is no reason to refuse what comes later.
    let renewed = authority.issue(&["localhost"]);
    put(&gateway, "cert.key", &renewed.key);
    put(&gateway, "cert.pem", &renewed.certificate);
    gateway.logged(&["in force"]).await;
    until_shown(&gateway, &authority, &renewed).await;
}

/// A version of the certificate as Kubernetes publishes it: `name -> ..data/name`, `..data -> ..VERSION`.
fn publish(folder: &Path, version: &str, identity: &Identity) {
    use std::os::unix::fs::symlink;
    let dated = folder.join(version);
    std::fs::create_dir_all(&dated).unwrap();
    std::fs::write(dated.join("cert.pem"), &identity.certificate).unwrap();
    std::fs::write(dated.join("cert.key"), &identity.key).unwrap();
    let data = folder.join("..data");
    let before = std::fs::read_link(&data).ok();
    symlink(version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), &data).unwrap();
    for name in ["cert.pem", "cert.key"] {
        let link = folder.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
    if let Some(before) = before {
        std::fs::remove_dir_all(folder.join(before)).unwrap();
    }
}

#[tokio::test]
async fn links_swapped_as_kubernetes_does_it_renew_key_and_certificate_at_once() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let setup = Setup::before(&upstream).toml(LISTENER);
    let folder = setup.folder().join("live");
    let first = authority.issue(&["localhost"]);
    publish(&folder, "..2026_1", &first);
    let gateway = setup.start().await;
    assert_eq!(shown(&gateway, &authority).await, first.der());
    for number in 2..=4 {
        let next = authority.issue(&["localhost"]);
        publish(&folder, &format!("..2026_{number}"), &next);
        until_shown(&gateway, &authority, &next).await;
    }
    // The two never were seen apart.
    let failed = [("result", "failed")];
    assert_eq!(gateway.metric("tidegate_reloads_total", &failed).await, 0.0);
}

#[tokio::test]
async fn a_hundred_renewals_leave_nothing_behind() {
    let authority = Authority::new();
    let upstream = Upstream::echo().await;
    let gateway = gateway(&upstream, &authority.issue(&["localhost"])).await;
    let mut open = Client::tls(gateway.https(), "localhost", authority.client(&["h2"]))
        .await
        .unwrap();
    let pair = [
        authority.issue(&["localhost"]),
        authority.issue(&["localhost"]),
    ];
    let (mut memory, mut descriptors) = (0, 0);
    for number in 0..100 {
        let next = &pair[number % 2];
        put(&gateway, "cert.key", &next.key);
        put(&gateway, "cert.pem", &next.certificate);
        until_shown(&gateway, &authority, next).await;
        if number == 20 {
            (memory, descriptors) = (gateway.memory(), gateway.descriptors());
        }
    }
    assert_eq!(open.send(get("/")).await.status, StatusCode::OK);
    assert!(
        gateway.memory() < memory + memory / 10,
        "{memory} KiB have become {} KiB",
        gateway.memory()
    );
    assert!(gateway.descriptors() <= descriptors + 3);
}
