//! Commands and their replies, compared to the byte with a Redis that no proxy stands in front of.

use crate::oracle::{Oracle, assert_same_replies};
use crate::support::resp::{Reply, encode, encode_line};
use crate::support::show;

/// A themed list of commands, one per line, run in this order on empty servers. Every reply must be Redis's own.
const SCRIPTS: [(&str, &str); 9] = [
    (
        "SET with all its options",
        "SET k v\nGET k\nSET k w GET\nSET k x NX\nSET new x XX\nSET new x NX\nSET k y XX GET\nSET k z EX 1000\nSET k z PX 1000000\n\
         SET k z EXAT 9999999999\nSET k z PXAT 9999999999999\nSET k a KEEPTTL\nSET k b NX GET\nset k c ex 1000 get\nSET k d EX 0\n\
         SET k d EX -1\nSET k d EX x\nSET k d EX\nSET k d NX XX\nSET k d EX 1 PX 1\nSET k d FOO\nSET k\nSET\nSET hash v GET\nGET k",
    ),
    (
        "strings",
        "SETNX s 1\nSETNX s 2\nSETEX s 1000 3\nPSETEX s 100000 4\nSETEX s 0 4\nGETSET s 5\nGETEX s\nGETEX s PERSIST\nTTL s\nAPPEND s 67\n\
         STRLEN s\nSETRANGE s 1 x\nGETRANGE s 0 -1\nSUBSTR s 0 0\nINCR s\nINCR n\nINCRBY n 10\nDECR n\nDECRBY n 3\nINCRBYFLOAT n 0.5\n\
         INCR n\nGET n\nINCRBY n x\nSET big 9223372036854775807\nINCR big\nGETDEL s\nGET s\nLCS n big\nSETBIT bits 7 1\nGETBIT bits 7\n\
         BITCOUNT bits\nBITPOS bits 1\nBITFIELD bits GET u8 0 SET u8 0 255\nGET bits\nBITOP AND dest bits n\nGET dest",
    ),
    (
        "many keys",
        "MSET a 1 b 2 c 3\nMGET a b c none a\nMSETNX c 1 d 2\nMSETNX d 1 e 2\nMGET d e\nMSET a\nMGET\nDEL a b none\nMGET a b c\nEXISTS c c none\n\
         TOUCH c none\nUNLINK c d e\nDBSIZE\nDEL\nRENAME none x\nSET x 1\nRENAME x y\nGET x\nGET y\nRENAMENX y z\nCOPY z w\nCOPY z w REPLACE\n\
         GET w\nTYPE w\nKEYS w\nSORT none\nOBJECT ENCODING w\nOBJECT REFCOUNT none\nDUMP none",
    ),
    (
        "other types, and GET of them",
        "HSET h f v g w\nHGET h f\nHGETALL h\nHMGET h f g x\nHINCRBY h n 5\nHDEL h f\nHLEN h\nGET h\nGET h\nHGET none f\nRPUSH l a b c\nLRANGE l 0 -1\n\
         LPOP l\nLPOP l 2\nLPOP l\nGET l\nSADD s a\nSADD s a b\nSCARD s\nSISMEMBER s a\nGET s\nZADD z 1 a 2.5 b\nZRANGE z 0 -1 WITHSCORES\n\
         ZSCORE z b\nZINCRBY z 1 a\nGET z\nSET h now-a-string\nGET h\nHGET h f\nXADD x 1-1 f v\nXRANGE x - +\nXLEN x\nXADD x 1-1 f v\nGET x\n\
         PFADD p a b\nPFCOUNT p\nGEOADD g 13.36 38.11 Palermo\nGEOPOS g Palermo none\nGEODIST g Palermo none\nSET str v\nLPUSH str x\nINCR str",
    ),
    (
        "life time",
        "SET k v\nTTL k\nPTTL none\nEXPIRE k 1000\nTTL k\nEXPIRE k 10 GT\nEXPIRE none 10\nPERSIST k\nTTL k\nGET k\nEXPIREAT k 1\nGET k\nSET k v\n\
         PEXPIREAT k 9999999999999\nEXPIRETIME k\nPEXPIRETIME k\nGETEX k EX 100\nGETEX k EXAT 9999999999\nEXPIRETIME k\nGETEX k FOO\nGET k",
    ),
    (
        "errors",
        "NOSUCHCOMMAND\nnosuchcommand a b c\nGET\nGET a b\nget\nINCR\nHSET h f\nHSET h\nLPUSH l\nSET k v\nHGETALL k\nLRANGE k 0 1\nEXPIRE k x\n\
         SETRANGE k -1 x\nCOPY k\nOBJECT NOSUCH k\nOBJECT\nXADD x\nEVAL\nEVALSHA 0 0\nZADD z x y\nZADD z NX XX 1 a\nGETRANGE k a b\nGET k",
    ),
    (
        "database and server",
        "SET k v\nDBSIZE\nFLUSHDB\nGET k\nSET k v\nFLUSHALL ASYNC\nGET k\nFLUSHALL SYNC\nPUBLISH channel message\nPUBSUB CHANNELS\nLOLWUT VERSION 99\n\
         CONFIG GET maxmemory\nCONFIG SET no-such-thing 1\nMEMORY USAGE none\nCOMMAND COUNT\nCOMMAND GETKEYS MSET a 1 b 2\nSCAN 0\n\
         SET k v\nSCAN 0 MATCH * COUNT 100\nLATENCY HISTOGRAM none\nTYPE none\nEXISTS k\nSWAPDB 0 0\nSWAPDB 0 99\nGET k",
    ),
    (
        "greetings",
        "PING\nPING hello\nping\nPING a b\nECHO hello\nECHO\nECHO a b\nSELECT 0\nSELECT\nSELECT x\nGET none",
    ),
    (
        "scripts",
        "SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db\nEVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0\n\
         FCALL nosuch 0\nEVAL 1 0\nEVAL x 0\nEVAL return{1,2,{3,'four'}} 0\nEVAL return{err='MY-error'} 0\nEVAL return{ok='fine'} 0\n\
         EVAL return(redis.call('SET',KEYS[1],ARGV[1])) 1 k v\nGET k\nEVAL redis.call('SET','k','undeclared') 0\nGET k\n\
         EVAL return(redis.call('HGETALL','k')) 0\nEVAL return(redis.pcall('GET','k')) 0\nEVAL_RO return(redis.call('GET','k')) 0\nSCRIPT FLUSH",
    ),
];

fn commands_of(script: &str) -> impl Iterator<Item = &str> {
    script.lines().map(str::trim)
}

#[test]
fn replies_are_those_of_redis_to_the_byte_one_command_at_a_time() {
    for (theme, script) in SCRIPTS {
        let oracle = Oracle::start();
        let (mut ours, mut theirs) = oracle.clients();
        for command in commands_of(script) {
            assert_same_replies(theme, &mut ours, &mut theirs, &encode_line(command));
        }
    }
}

#[test]
fn replies_are_those_of_redis_to_the_byte_in_one_pipeline() {
    for (theme, script) in SCRIPTS {
        let oracle = Oracle::start();
        let pipeline: Vec<u8> = commands_of(script).flat_map(encode_line).collect();
        oracle.assert_same(theme, &pipeline);
    }
}

#[test]
fn replies_are_those_of_redis_to_the_byte_in_resp3() {
    for (theme, script) in SCRIPTS {
        let oracle = Oracle::start();
        let (mut ours, mut theirs) = oracle.clients();
        for client in [&mut ours, &mut theirs] {
            assert!(matches!(client.line("HELLO 3"), Reply::Map(_)));
        }
        for command in commands_of(script) {
            assert_same_replies(theme, &mut ours, &mut theirs, &encode_line(command));
        }
        let pipeline: Vec<u8> = commands_of(script).flat_map(encode_line).collect();
        assert_same_replies(theme, &mut ours, &mut theirs, &pipeline);
    }
}

#[test]
fn inline_commands_are_understood_as_redis_understands_them() {
    let oracle = Oracle::start();
    let lines: [&[u8]; 16] = [
        b"PING\r\n",
        b"PING\n",
        b"  PING  \r\n",
        b"\r\n\n\r\nPING\r\n",
        b"SET k v\r\nGET k\r\nGET k\r\n",
        b"set\tk \t w\r\nget k\r\n",
        b"SET k \"two words\"\r\nGET k\r\n",
        b"SET k \"\\x00\\xff\\n\\r\\t\\\"\\\\\"\r\nGET k\r\n",
        b"SET k 'it\\'s \\x41'\r\nGET k\r\n",
        b"SET \"\" \"\"\r\nGET \"\"\r\nGET ''\r\n",
        b"NOSUCH a b\r\nPING\r\n",
        b"GET\r\nGET a b\r\n",
        b"INCR n\r\n*2\r\n$3\r\nGET\r\n$1\r\nn\r\nGET n\r\n",
        b"*0\r\n*-1\r\nPING\r\n",
        b"*-5\r\n\r\n*1\r\n$4\r\nPING\r\n",
        b"DEL k \"\" n\r\nDBSIZE\r\n",
    ];
    for line in lines {
        oracle.assert_same("inline", line);
    }
}

#[test]
fn script_replies_that_are_no_text_pass_untouched() {
    let oracle = Oracle::start();
    let (mut ours, mut theirs) = oracle.clients();
    let binary_error = b"return redis.error_reply('ERR \\255\\254 not text')";
    let commands = [
        encode(&[b"EVAL".as_slice(), binary_error, b"0"]),
        encode_line("PING"),
    ]
    .concat();
    for _ in 0..3 {
        let reply = assert_same_replies(
            "an error that is not UTF-8",
            &mut ours,
            &mut theirs,
            &commands,
        );
        assert!(reply.contains(&0xff), "{}", show(&reply));
    }
    // What the shared connections carried did not hurt them.
    assert_same_replies(
        "afterwards",
        &mut oracle.proxy.resp(),
        &mut theirs,
        &encode_line("GET k"),
    );
}

#[test]
fn a_reply_of_ten_thousand_items_passes_untouched() {
    let oracle = Oracle::start();
    let items: Vec<String> = (0..10_000).map(|n| format!("item-{n}")).collect();
    let mut push = vec!["RPUSH".to_string(), "l".to_string()];
    push.extend(items);
    oracle.assert_same(
        "a long command and a long reply",
        &[encode(&push), encode_line("LRANGE l 0 -1")].concat(),
    );
}

/// Commands that keep hitting few keys, so that reads, fetches and writes of the same key meet.
fn random_command(random: &mut fastrand::Rng) -> Vec<u8> {
    let key = ["k0", "k1", "k2", "k3"][random.usize(..4)];
    let other = ["k0", "k1", "k2", "k3"][random.usize(..4)];
    let value = random.u32(..1000).to_string();
    match random.u8(..24) {
        0..=9 => encode(&["GET", key]),
        10 | 11 => encode(&["SET", key, &value]),
        12 => encode(&["DEL", key, other]),
        13 => encode(&["INCR", key]),
        14 => encode(&["APPEND", key, &value]),
        15 => encode(&["MGET", key, other]),
        16 => encode(&["MSET", key, &value, other, "same"]),
        17 => encode(&["RENAME", key, other]),
        18 => encode(&["HSET", key, "f", &value]),
        19 => encode(&[
            "EVAL",
            &format!("return redis.call('SET', '{key}', '{value}')"),
            "0",
        ]),
        20 => encode(&["GETSET", key, &value]),
        21 => encode(&["SET", key, &value, "NX", "GET"]),
        22 => encode(&["EXISTS", key]),
        _ => encode(&["NOSUCHCOMMAND", key]),
    }
}

#[test]
fn random_commands_of_two_clients_by_turns_read_what_redis_would_say() {
    for seed in 0..8 {
        // A small cache, so that eviction takes part; on odd seeds absence is kept too.
        let oracle = Oracle::with(|proxy| {
            proxy
                .env("CACHE_CAPACITY", 3)
                .env("CACHE_NEGATIVE_TTL_SECS", (seed % 2) * 60)
        });
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pairs = [oracle.clients(), oracle.clients()];
        for turn in 0..150 {
            let length = if random.bool() {
                1
            } else {
                random.usize(2..30)
            };
            let pipeline: Vec<u8> = (0..length)
                .flat_map(|_| random_command(&mut random))
                .collect();
            let (ours, theirs) = &mut pairs[random.usize(..2)];
            assert_same_replies(
                &format!("seed {seed}, turn {turn}"),
                ours,
                theirs,
                &pipeline,
            );
        }
    }
}
