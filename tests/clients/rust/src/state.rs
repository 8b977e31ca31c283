//! What needs a connection of its own: transactions, messages, blocking commands, a large value.

use crate::{order, record};
use redis::{Client, Commands, Connection, RedisError, RedisResult};
use std::thread;
use std::time::Duration;

const TRIES: usize = 1000;

fn poll<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..TRIES {
        if let Some(found) = look() {
            return found;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

pub fn all(port: u16) {
    for path in ["", "?protocol=resp3"] {
        let client = Client::open(format!("redis://127.0.0.1:{port}/{path}")).expect("an address");
        let mut connection = client.get_connection().expect("it connects");
        redis::cmd("FLUSHALL")
            .exec(&mut connection)
            .expect("FLUSHALL");
        transactions(&client, &mut connection).expect("transactions");
        messages(&client, &mut connection).expect("messages");
        blocking(&client, &mut connection).expect("blocking commands");
        let value = vec![b'x'; 16 << 20];
        let got: Vec<u8> = Commands::set(&mut connection, "large", &value)
            .and_then(|()| Commands::get(&mut connection, "large"))
            .expect("16 MB pass");
        record(
            "16 MB",
            if got == value {
                "as they were"
            } else {
                "changed"
            },
        );
        outage(&client, &mut connection);
    }
}

fn get(connection: &mut Connection, key: &str) -> RedisResult<Option<String>> {
    connection.get(key)
}

fn transactions(client: &Client, connection: &mut Connection) -> RedisResult<()> {
    let _: () = Commands::set(connection, "t", "old")?;
    record("before", &format!("{:?}", get(connection, "t")));
    let atomic: RedisResult<(String, i64, String, Option<String>)> = redis::pipe()
        .atomic()
        .set("t", 0)
        .incr("t", 1)
        .get("t")
        .get("missing")
        .query(connection);
    record("atomic pipeline", &format!("{atomic:?}"));
    record("behind it", &format!("{:?}", get(connection, "t")));
    let mut wrong = redis::pipe();
    wrong.atomic().set("t", "x").lpush("t", 1).get("t");
    let wrong: RedisResult<Vec<redis::Value>> = wrong.query(connection);
    record("with an error", &format!("{wrong:?}"));
    let mut refused = redis::pipe();
    refused.atomic().set("t", "never").cmd("GET");
    let refused: RedisResult<Vec<redis::Value>> = refused.query(connection);
    record("refused", &format!("{refused:?}"));
    record("behind the refusal", &format!("{:?}", get(connection, "t")));
    // Optimistic increments of four at once: WATCH with a GET that must not come from memory.
    let _: () = Commands::set(connection, "counted", 0)?;
    record(
        "counted at first",
        &format!("{:?}", get(connection, "counted")),
    );
    let counters: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            thread::spawn(move || -> RedisResult<()> {
                let mut own = client.get_connection()?;
                for _ in 0..10 {
                    redis::transaction(&mut own, &["counted"], |own, pipe| {
                        let value: i64 = Commands::get(own, "counted")?;
                        let done: Option<(i64,)> = pipe
                            .set("counted", value + 1)
                            .ignore()
                            .get("counted")
                            .query(own)?;
                        Ok(done)
                    })?;
                }
                Ok(())
            })
        })
        .collect();
    for counter in counters {
        counter.join().expect("it counts")?;
    }
    record(
        "counted by four at once",
        &format!("{:?}", get(connection, "counted")),
    );
    Ok(())
}

fn messages(client: &Client, connection: &mut Connection) -> RedisResult<()> {
    let mut own = client.get_connection()?;
    let mut sub = own.as_pubsub();
    sub.subscribe("news")?;
    sub.psubscribe("n*")?;
    for n in 0..50 {
        let _: i64 = connection.publish("news", n)?;
    }
    let heard: RedisResult<Vec<String>> = (0..100)
        .map(|_| {
            let message = sub.get_message()?;
            Ok(format!(
                "{:?} {}",
                message.get_pattern::<Option<String>>()?,
                message.get_payload::<String>()?
            ))
        })
        .collect();
    record("heard", &format!("{heard:?}"));
    sub.unsubscribe("news")?;
    sub.punsubscribe("n*")?;
    drop(sub);
    record(
        "a plain connection again",
        &format!("{:?}", get(&mut own, "t")),
    );
    Ok(())
}

fn blocking(client: &Client, connection: &mut Connection) -> RedisResult<()> {
    let mut own = client.get_connection()?;
    let none: RedisResult<Option<(String, String)>> = Commands::blpop(&mut own, "queue", 0.1);
    record("blpop, timed out", &format!("{none:?}"));
    let waiting = thread::spawn(move || -> RedisResult<(String, String)> {
        Commands::blpop(&mut own, "queue", 0.0)
    });
    await_blocked(connection, 1);
    let _: i64 = Commands::rpush(connection, "queue", "a")?;
    record(
        "blpop, woken",
        &format!("{:?}", waiting.join().expect("it waits")),
    );
    Ok(())
}

fn await_blocked(connection: &mut Connection, count: usize) {
    poll("a blocked client", || {
        let info: String = redis::cmd("INFO")
            .arg("clients")
            .query(connection)
            .expect("INFO");
        info.contains(&format!("blocked_clients:{count}\r\n"))
            .then_some(())
    });
}

fn outage(client: &Client, connection: &mut Connection) {
    let mut own = client.get_connection().expect("it connects");
    let waiting = thread::spawn(move || -> RedisResult<(String, String)> {
        Commands::blpop(&mut own, "queue", 0.0)
    });
    await_blocked(connection, 1);
    order("kill");
    let lost = |error: RedisError| error.is_connection_dropped() || error.is_io_error();
    let ended = waiting.join().expect("it waits").map_err(lost);
    record(
        "a command that waited when Redis died",
        &format!("lost: {ended:?}"),
    );
    order("boot");
    let again = poll("a transaction", || {
        let mut own = client.get_connection().ok()?;
        let done: RedisResult<(String, String)> = redis::pipe()
            .atomic()
            .set("t", "again")
            .get("t")
            .query(&mut own);
        done.ok()
    });
    record("a transaction again", &format!("{again:?}"));
    *connection = client.get_connection().expect("Redis is back");
}
