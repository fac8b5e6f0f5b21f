//! Plain http through a proxy: the request itself goes to the proxy, with the whole URL in its first line.
//!
//! The client would open a tunnel by CONNECT instead. Proxies allow that for the port of https alone (a stock squid does), and
//! git does not ask for it.

use std::fmt;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

use crate::remote::encoding::base64;
use crate::remote::redact;
use crate::remote::url::Origin;

/// A proxy that plain http requests are sent to.
#[derive(Clone)]
pub(super) struct Forward {
    /// The proxy's own URL.
    pub uri: ureq::http::Uri,
    /// What comes before the path in a request's first line.
    origin: String,
    /// The header line for the proxy's credentials, or nothing.
    authorization: String,
}

impl Forward {
    pub fn new(proxy: &ureq::Proxy, origin: &Origin) -> Forward {
        let (user, secret) = (proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
        let authorization = if user.is_empty() && secret.is_empty() {
            String::new()
        } else {
            let pair = base64(format!("{user}:{secret}").as_bytes());
            redact::register_secret(&pair);
            format!("Proxy-Authorization: Basic {pair}\r\n")
        };
        Forward { uri: proxy.uri().clone(), origin: origin.to_string(), authorization }
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Forward(to {})", self.origin)
    }
}

/// Connects as the client does, or to such a proxy.
#[derive(Debug)]
pub(super) struct Connecting {
    pub inner: DefaultConnector,
    pub forward: Option<Forward>,
}

impl Connector<()> for Connecting {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, ureq::Error> {
        let Some(forward) = &self.forward else { return self.inner.connect(details, chained) };
        let to_proxy = ConnectionDetails {
            uri: &forward.uri,
            // Already the proxy's: see `Names`.
            addrs: details.resolver.resolve(&forward.uri, details.config, details.timeout)?,
            config: details.config,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let connected = self.inner.connect(&to_proxy, chained)?;
        Ok(connected.map(|inner| -> Box<dyn Transport> {
            Box::new(ToProxy { inner, forward: forward.clone(), before_head: true })
        }))
    }
}

/// A connection to the proxy, which changes the head of each request.
#[derive(Debug)]
struct ToProxy {
    inner: Box<dyn Transport>,
    forward: Forward,
    /// What is sent next is the head of a request: nothing was sent yet, or an answer was read since.
    before_head: bool,
}

impl ToProxy {
    /// The head of a request with the whole URL in its first line, and the credentials in the second.
    fn changed(&self, head: &[u8]) -> Option<Vec<u8>> {
        let path = head.iter().position(|b| *b == b' ')? + 1;
        let line = head.windows(2).position(|pair| pair == b"\r\n")? + 2;
        let (method, target, rest) = (head.get(..path)?, head.get(path..line)?, head.get(line..)?);
        Some([method, self.forward.origin.as_bytes(), target, self.forward.authorization.as_bytes(), rest].concat())
    }
}

impl Transport for ToProxy {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if !std::mem::take(&mut self.before_head) {
            return self.inner.transmit_output(amount, timeout);
        }
        let head = self.inner.buffers().output().get(..amount).unwrap_or_default().to_vec();
        let Some(changed) = self.changed(&head) else { return self.inner.transmit_output(amount, timeout) };
        let room = self.inner.buffers().output().len().max(1);
        for part in changed.chunks(room) {
            if let Some(place) = self.inner.buffers().output().get_mut(..part.len()) {
                place.copy_from_slice(part);
            }
            self.inner.transmit_output(part.len(), timeout)?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.before_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
