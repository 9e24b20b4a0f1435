<?php
// RabbitMQ through PHP's extension amqp, messages as Estafette has them: prints the seconds a job took.
// Its calls block: confirmations are waited for when the window is full.
//
// Usage: php amqp.php publish URL MESSAGES WINDOW | consume URL MESSAGES PREFETCH MESSAGES_PER_ACK

[, $job, $url, $messages, $limit] = $argv;
$block = (int) ($argv[5] ?? 1);
$parts = parse_url($url);

function publish(AMQPExchange $exchange, AMQPChannel $channel, string $queue, int $messages, int $window): void
{
    $confirmed = 0;
    $sent = 0;
    $channel->confirmSelect();
    $channel->setConfirmCallback(
        function (int $tag, bool $multiple) use (&$confirmed, &$sent): bool {
            $confirmed = $multiple ? $tag : $confirmed + 1;
            return $confirmed < $sent;
        },
        fn () => throw new Exception('a message was refused'),
    );
    $properties = [
        'delivery_mode' => 2,
        'message_id' => '01a1fc72-14c4-70a8-824e-f41e4c46a933',
        'timestamp' => 1763704800,
        'type' => 'bench.message',
        'app_id' => 'estafette',
        'headers' => ['cloudEvents:specversion' => '1.0', 'cloudEvents:time' => '2026-11-21T05:00:00.123456Z'],
    ];
    $body = str_repeat('x', 256);
    while ($sent < $messages) {
        $exchange->publish($body, $queue, AMQP_NOPARAM, $properties);
        $sent++;
        if ($sent % $window === 0 || $sent === $messages) {
            $channel->waitForConfirm(30);
        }
    }
}

$connection = new AMQPConnection([
    'host' => $parts['host'], 'port' => $parts['port'], 'login' => $parts['user'], 'password' => $parts['pass'],
]);
$connection->connect();
$channel = new AMQPChannel($connection);
$queue = new AMQPQueue($channel);
$queue->setName('bench-php-' . getmypid());
$queue->setFlags(AMQP_DURABLE);
$queue->declareQueue();
$publishing = new AMQPChannel($connection);
$exchange = new AMQPExchange($publishing);
if ($job === 'consume') {
    publish($exchange, $publishing, $queue->getName(), (int) $messages, 1000);
    $channel->qos(0, (int) $limit);
}
$started = hrtime(true);
if ($job === 'publish') {
    publish($exchange, $publishing, $queue->getName(), (int) $messages, (int) $limit);
} else {
    $received = 0;
    $queue->consume(function (AMQPEnvelope $message, AMQPQueue $queue) use (&$received, $messages, $block): bool {
        $received++;
        $last = $received === (int) $messages;
        if ($received % $block === 0 || $last) {
            $queue->ack($message->getDeliveryTag(), $block > 1 ? AMQP_MULTIPLE : AMQP_NOPARAM);
        }
        return !$last;
    });
}
echo (hrtime(true) - $started) / 1e9, "\n";
$queue->delete();
