<?php
// Replays what the published PHP clients send, byte by byte as they were recorded: discovery as in 1.0.5, the long
// dialect of 1.0.1 and the short one of 1.0.5, text cut into fragments of 4096 bytes, pongs without a mask.
declare(strict_types=0);

[, $discovery] = $argv;
$version = json_decode(file_get_contents("http://$discovery/version"), true);
$api = $version['apis'];
$api = array_shift($api);
$nodes = json_decode(file_get_contents("http://$discovery/$api/nodes"), true)['nodes'];
$node = $nodes[0];
if (sprintf('%s:%d', $node['ip'], $node['port']) !== $node['host'] || $node['host'] !== $node['api_server']) {
    exit("the published clients would not meet at one address\n");
}
$socket = stream_socket_client("tcp://{$node['api_server']}", $code, $error, 5);
stream_set_timeout($socket, 10);
$key = base64_encode(random_bytes(16));
fwrite($socket, "GET /ws/$api HTTP/1.1\r\nhost: {$node['api_server']}\r\nuser-agent: websocket-client-php\r\n"
    . "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: $key\r\nsec-websocket-version: 13\r\n\r\n");
$head = stream_get_line($socket, 4096, "\r\n\r\n");
$accept = base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
if (!str_contains($head, " 101 ") || !preg_match("/Sec-WebSocket-Accept: (\S+)/i", $head, $m) || $m[1] !== $accept) {
    exit("no upgrade: $head\n");
}

function frame(int $opcode, string $payload, bool $final, bool $masked): string
{
    $frame = chr(($final ? 0x80 : 0) | $opcode);
    $mask = $masked ? 0x80 : 0;
    $length = strlen($payload);
    $frame .= $length < 126 ? chr($mask | $length) : chr($mask | 126) . pack('n', $length);
    if (!$masked) {
        return $frame . $payload;
    }
    $key = random_bytes(4);
    for ($at = 0; $at < $length; $at++) {
        $payload[$at] = $payload[$at] ^ $key[$at % 4];
    }
    return $frame . $key . $payload;
}

function say(string $text): void
{
    global $socket;
    $parts = str_split($text, 4096);
    foreach ($parts as $at => $part) {
        fwrite($socket, frame($at === 0 ? 1 : 0, $part, $at === count($parts) - 1, true));
    }
}

function bytes(int $count): string
{
    global $socket;
    $bytes = '';
    while (strlen($bytes) < $count) {
        $more = fread($socket, $count - strlen($bytes));
        if ($more === false || $more === '') {
            exit("the connection ended\n");
        }
        $bytes .= $more;
    }
    return $bytes;
}

function hear(): array
{
    global $socket;
    while (true) {
        [$first, $length] = array_values(unpack('C2', bytes(2)));
        $length = $length === 126 ? unpack('n', bytes(2))[1] : $length;
        $payload = bytes($length);
        if (($first & 15) === 9) {
            fwrite($socket, frame(10, $payload, true, false));
        } elseif (($first & 15) === 1) {
            return json_decode($payload, true);
        }
    }
}

function ask(array $request): array
{
    say(json_encode($request));
    return hear();
}

// Their types: what is no number is a TypeError.
function integer($value): int
{
    return (static fn (): int => $value)();
}

fwrite($socket, frame(10, '', true, false));
echo json_encode(ask(['m' => 'queue.consume', 'p' => ['foo'], 'i' => 1])), "\n";
echo "consuming\n";
$event = hear();
$client = integer($event['p']['c']);
integer($event['p']['n']);
echo $event['e'], ' ', $event['p']['t'], ' ', json_encode($event['p']['d']), "\n";
foreach ([['set_context_value', ['user_id', 1000]], ['set_context', [[]]], ['subscribe', ['user_10001']],
    ['unsubscribe', []]] as $at => [$function, $arguments]) {
    $call = ['c' => $client, 'f' => $function, 'a' => $arguments];
    echo json_encode(ask(['m' => 'conn.call', 'p' => $call, 'i' => $at + 2])), "\n";
}
echo json_encode(ask(['m' => 'mesh.send', 'p' => ['c' => $client, 'd' => '{"result":"ok"}'], 'i' => 6])), "\n";
$long = str_repeat('Ж/', 4000);
echo json_encode(ask(['m' => 'mesh.send', 'p' => ['c' => 'user_10001', 'd' => $long], 'i' => 7])), "\n";
$call = ['client_id' => (string) $client, 'method' => 'set_context_value', 'params' => ['user_id' => 1000]];
echo json_encode(ask(['method' => 'conn.call', 'params' => $call, 'id' => 0])), "\n";
$publish = ['channel' => 'user_10001', 'data' => '{"broadcast":"ok"}'];
echo json_encode(ask(['method' => 'mesh.send', 'params' => $publish, 'id' => 0])), "\n";
echo json_encode(ask(['m' => 'queue.unpop', 'p' => [], 'i' => 8])), "\n";
fwrite($socket, frame(8, pack('n', 1000), true, false));
