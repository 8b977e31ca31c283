//! The dashboard in a real browser: headless Chromium, spoken to by its DevTools protocol over a WebSocket.
//!
//! Without Chromium this test says that it was skipped and why (`apt-get install chromium`).

use crate::support::http::HttpClient;
use crate::support::proxy::Proxy;
use crate::support::redis_server::RedisServer;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually, eventually_some};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A browser starts slowly on a busy machine.
const LONG: Duration = Duration::from_secs(4 * PATIENCE.as_secs());
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// A page in a browser of its own.
struct Page {
    browser: Child,
    socket: TcpStream,
    last_id: u32,
    _profile: Scratch,
}

impl Page {
    /// Opens the address; `None`, with a clear word, where there is no Chromium.
    fn open(url: &str) -> Option<Page> {
        let profile = Scratch::new("chromium");
        let start = |name: &&str| {
            let mut command = Command::new(name);
            command.args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ]);
            command.args([
                "--no-first-run",
                "--disable-extensions",
                "--remote-debugging-port=0",
            ]);
            command.arg(format!("--user-data-dir={}", profile.path().display()));
            command
                .arg("about:blank")
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            command.stderr(Stdio::null()).spawn().ok()
        };
        let Some(browser) = NAMES.iter().find_map(start) else {
            eprintln!(
                "SKIPPED: nobody looked at the dashboard, there is no Chromium (apt-get install chromium)"
            );
            return None;
        };
        let port_file = profile.path().join("DevToolsActivePort");
        let port: u16 = eventually_some("Chromium takes its debugger's calls", LONG, || {
            fs::read_to_string(&port_file)
                .ok()?
                .lines()
                .next()?
                .parse()
                .ok()
        });
        let mut http = HttpClient::connect(port);
        http.send(format!("PUT /json/new?{url} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
        let target = String::from_utf8(http.response().body).expect("the debugger speaks UTF-8");
        let (_, behind) = target
            .split_once("/devtools/page/")
            .expect("the page has a debugger");
        let id = behind.split('"').next().expect("split yields something");
        let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("it listens");
        socket
            .set_read_timeout(Some(LONG))
            .expect("a time-out can be set");
        let hello = format!(
            "GET /devtools/page/{id} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: bmVhcmNhY2hlbmVhcmNhYw==\r\n\r\n"
        );
        socket.write_all(hello.as_bytes()).expect("it reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).expect("it answers");
            head.push(byte[0]);
        }
        assert!(
            head.starts_with(b"HTTP/1.1 101"),
            "{}",
            String::from_utf8_lossy(&head)
        );
        Some(Page {
            browser,
            socket,
            last_id: 0,
            _profile: profile,
        })
    }

    /// One call of the protocol; its answer as it came.
    fn call(&mut self, method: &str, params: &str) -> String {
        self.last_id += 1;
        let text = format!(
            "{{\"id\":{},\"method\":\"{method}\",\"params\":{params}}}",
            self.last_id
        );
        // RFC 6455: a text frame, masked with a key of zeros, which leaves it as it is.
        let mut frame = vec![0x81];
        let len = u16::try_from(text.len()).expect("no call of ours is so long");
        if len < 126 {
            frame.push(0x80 | len as u8);
        } else {
            frame.push(0x80 | 126);
            frame.extend(len.to_be_bytes());
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.socket.write_all(&frame).expect("the browser reads");
        let ours = format!("{{\"id\":{},", self.last_id);
        loop {
            let message = self.message();
            if message.starts_with(&ours) {
                return message;
            }
        }
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.socket
            .read_exact(&mut bytes)
            .expect("the browser goes on");
        bytes
    }

    fn message(&mut self) -> String {
        let mut message = Vec::new();
        loop {
            let head: [u8; 2] = self.take();
            let len = match head[1] & 0x7f {
                126 => u64::from(u16::from_be_bytes(self.take())),
                127 => u64::from_be_bytes(self.take()),
                len => u64::from(len),
            };
            let mut part = vec![0; usize::try_from(len).expect("it fits memory")];
            self.socket
                .read_exact(&mut part)
                .expect("the frame to its end");
            message.extend(part);
            if head[0] & 0x80 != 0 {
                return String::from_utf8(message).expect("the debugger speaks UTF-8");
            }
        }
    }

    /// What the expression is worth in the page, as text.
    #[track_caller]
    fn value(&mut self, expression: &str) -> String {
        // Escaped there, so that what comes back is letters, digits and a few signs.
        let expression = format!("encodeURIComponent(String({expression}))");
        let expression = expression.replace('\\', "\\\\").replace('"', "\\\"");
        let params = format!("{{\"expression\":\"{expression}\",\"returnByValue\":true}}");
        let answer = self.call("Runtime.evaluate", &params);
        let found = answer.split_once("\"value\":\"").map(|(_, behind)| behind);
        // While the page is loading there is nothing to look at.
        let encoded = found.and_then(|behind| behind.split('"').next());
        encoded.map_or(answer.clone(), decoded)
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        rest = behind;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (code, behind) = rest.split_at(2);
        rest = behind;
        let code = std::str::from_utf8(code).expect("two digits");
        bytes.push(u8::from_str_radix(code, 16).expect("two digits"));
    }
    String::from_utf8(bytes).expect("encodeURIComponent encodes UTF-8")
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

const FIGURES: &str = "[...document.querySelectorAll('[data-figure]')].map(f => \
    f.dataset.figure + '=' + f.textContent.replaceAll(',', '')).join(' ')";
const UNNAMED: &str = "[...document.querySelectorAll('svg,button,input')].filter(e => \
    !(e.getAttribute('aria-label') || e.textContent.trim())).length";
const LOADED_ELSEWHERE: &str = "performance.getEntriesByType('resource').filter(r => \
    !r.name.startsWith(location.origin) && !r.name.startsWith('data:')).length";
const IS_LOST: &str = "!document.getElementById('lost').hidden";

#[test]
fn the_dashboard_shows_what_is_counted_however_keys_are_called_and_survives_a_restart() {
    let redis = RedisServer::start();
    let proxy = Proxy::to(&redis).tracking().with_admin().start_tracking();
    let tag = "<img src=x onerror=document.title=1>";
    let strange = format!("{tag}\"'&\u{1}\u{e9}\u{202e}{}", "long".repeat(2000));
    redis.call(&["SET", &strange, "v"]);
    let mut client = proxy.resp();
    for _ in 0..400 {
        client.call(&["GET", &strange]);
        client.call(&["GET", "usual"]);
    }
    let Some(mut page) = Page::open(&format!("http://localhost:{}/", proxy.admin_port)) else {
        return;
    };
    let names = [
        "hits",
        "misses",
        "joined",
        "relayed",
        "evictions",
        "invalidations",
        "verify_mismatches",
    ];
    eventually("the figures are those of the proxy", LONG, || {
        let shown = page.value(FIGURES);
        let info = proxy.info();
        let is_shown = |name: &str| {
            let line = format!("{name}={}", info[&format!("nearcache_{name}")]);
            shown.split(' ').any(|found| found == line)
        };
        names.iter().all(|name| is_shown(name))
    });
    let ratio = page.value("document.querySelector('#tile-ratio dd').textContent");
    assert!(ratio.ends_with(" %"), "{ratio}");
    eventually("the hot keys are shown", LONG, || {
        let hot = page.value("document.getElementById('hot').textContent");
        hot.contains(tag) && hot.contains("usual")
    });
    assert_eq!(
        page.value("document.querySelectorAll('#hot *:not(tr):not(td)').length"),
        "0",
        "a key is text"
    );
    assert_eq!(page.value("document.title"), "nearcache");
    eventually("lines are drawn", LONG, || {
        page.value("document.querySelectorAll('#rates path').length") == "5"
    });
    // For a screen reader and the keyboard.
    eventually("everything has a name", LONG, || page.value(UNNAMED) == "0");
    let second = "document.querySelectorAll('#hot-by button')[1]";
    page.value(&format!(
        "({second}.focus(), document.activeElement.click())"
    ));
    assert_eq!(
        page.value(&format!("{second}.getAttribute('aria-pressed')")),
        "true"
    );
    let phone = "{\"width\":360,\"height\":740,\"deviceScaleFactor\":2,\"mobile\":true}";
    page.call("Emulation.setDeviceMetricsOverride", phone);
    eventually("nothing is wider than a phone", LONG, || {
        page.value("document.documentElement.scrollWidth <= 360") == "true"
    });
    assert_eq!(
        page.value(LOADED_ELSEWHERE),
        "0",
        "nothing is loaded from elsewhere"
    );

    let (http, resp, admin) = (proxy.http_port, proxy.resp_port, proxy.admin_port);
    drop((client, proxy));
    eventually("it says that nobody answers", LONG, || {
        page.value(IS_LOST) == "true"
    });
    let proxy = Proxy::to(&redis)
        .on_ports(Some(http), Some(resp))
        .with_admin_on(admin)
        .start();
    let about = format!("pid {},", proxy.pid());
    eventually("it shows the new process", LONG, || {
        let shown = page.value("document.getElementById('about').textContent");
        page.value(IS_LOST) == "false" && shown.contains(&about)
    });
}
