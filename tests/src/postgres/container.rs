//! PostgreSQL in a container, on the Docker engine testcontainers finds (`DOCKER_HOST`, or the
//! default socket).

use std::{collections::HashMap, env, fmt, time::Duration};

use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    bollard::models::PortBinding,
    core::{IntoContainerPort, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::time::timeout;

use super::{IMAGE, STARTING, TUNING, wait_until_ready};
use crate::client::causes;

const DEFAULT_IMAGE: &str = "postgres:17-alpine";

/// A running container, removed by [`Container::stop`].
#[derive(Debug)]
pub(super) struct Container {
    image: String,
    port: u16,
    running: ContainerAsync<GenericImage>,
}

impl Container {
    pub(super) async fn start() -> Result<Container, String> {
        engine().await?;
        let image = env::var(IMAGE).unwrap_or_else(|_| DEFAULT_IMAGE.to_owned());
        let (name, tag) = match image.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (image.as_str(), "latest"),
        };
        // Loopback only: the password is public.
        let loopback = PortBinding { host_ip: Some("127.0.0.1".into()), host_port: None };
        let bindings = HashMap::from([("5432/tcp".to_owned(), Some(vec![loopback]))]);
        let running = GenericImage::new(name, tag)
            .with_exposed_port(5432.tcp())
            .with_env_var("POSTGRES_PASSWORD", "postgres")
            .with_cmd(TUNING.iter().flat_map(|setting| ["-c", *setting]))
            .with_host_config_modifier(move |host| {
                host.publish_all_ports = Some(false);
                host.port_bindings = Some(bindings.clone().into_iter().collect());
            })
            .with_startup_timeout(STARTING)
            .start()
            .await
            .map_err(|error| format!("no container of {image}: {}", causes(error)))?;
        let port = running.get_host_port_ipv4(5432.tcp()).await.map_err(causes)?;
        let container = Container { image, port, running };
        wait_until_ready(&container.url(), || Ok(())).await?;
        Ok(container)
    }

    pub(super) fn url(&self) -> String {
        format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", self.port)
    }

    pub(super) async fn stop(self) -> Result<(), String> {
        self.running.rm().await.map_err(causes)
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a container of {} by testcontainers", self.image)
    }
}

/// Pings the Docker engine.
pub(super) async fn engine() -> Result<(), String> {
    let ping = async {
        let engine = docker_client_instance().await.map_err(causes)?;
        engine.ping().await.map_err(causes)
    };
    match timeout(Duration::from_secs(10), ping).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(reason)) => Err(format!("no Docker engine answers: {reason}")),
        Err(_) => Err("no Docker engine answers: no reply on the socket".to_owned()),
    }
}
