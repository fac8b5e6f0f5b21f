//! A SOCKS 5 proxy on loopback, which leads every connection to one server.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::http::HttpServer;

pub struct Socks {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
}

impl Socks {
    /// `wants`: the user and the password without which it lets nobody through.
    pub fn to(server: &HttpServer, wants: Option<(&'static str, &'static str)>) -> Socks {
        let target = server.address;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (kept, ended) = (asked.clone(), over.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let kept = kept.clone();
                std::thread::spawn(move || serve(stream?, target, wants, &kept));
            }
        });
        Socks { address, asked, over }
    }

    /// Where it was asked to connect to: `name:port` or `address:port`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    target: SocketAddr,
    wants: Option<(&str, &str)>,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let bytes = |stream: &mut TcpStream, count: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).map(|()| bytes)
    };
    let text = |stream: &mut TcpStream| -> io::Result<String> {
        let length = bytes(stream, 1)?[0];
        Ok(String::from_utf8_lossy(&bytes(stream, length.into())?).into_owned())
    };
    let methods = bytes(&mut stream, 2)?[1];
    let methods = bytes(&mut stream, methods.into())?;
    match wants {
        None => stream.write_all(&[5, 0])?,
        Some(_) if !methods.contains(&2) => return stream.write_all(&[5, 0xff]),
        Some((user, secret)) => {
            stream.write_all(&[5, 2])?;
            bytes(&mut stream, 1)?;
            let right = (text(&mut stream)?, text(&mut stream)?) == (user.to_owned(), secret.to_owned());
            stream.write_all(&[1, u8::from(!right)])?;
            if !right {
                return Ok(());
            }
        }
    }
    let kind = bytes(&mut stream, 4)?[3];
    let host = match kind {
        1 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes(&mut stream, 4)?).unwrap()).to_string(),
        _ => text(&mut stream)?,
    };
    let port = bytes(&mut stream, 2)?;
    asked.lock().unwrap().push(format!("{host}:{}", u16::from_be_bytes([port[0], port[1]])));
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    let mut server = TcpStream::connect(target)?;
    let (mut back, mut to_client) = (server.try_clone()?, stream.try_clone()?);
    std::thread::spawn(move || io::copy(&mut back, &mut to_client));
    io::copy(&mut stream, &mut server)?;
    server.shutdown(std::net::Shutdown::Both)
}
