<?php
// Drop-files as small PHP libraries have them: a file per message under a name of its own, nothing flushed, and a consumer
// that looks into the directory anew for each message.
//
// Usage: php dropfile.php publish|consume DIRECTORY MESSAGES   prints the seconds the job took

[, $job, $directory, $messages] = $argv;

function publish(string $directory, int $messages): void
{
    for ($number = 0; $number < $messages; $number++) {
        $name = sprintf('%s/%.6f-%d', $directory, microtime(true), $number);
        $body = json_encode(['number' => $number, 'padding' => str_repeat('x', 225)]);
        file_put_contents("$name.part", $body);
        rename("$name.part", "$name.json");
    }
}

function take(string $directory): ?array
{
    $entries = opendir($directory);
    while (($name = readdir($entries)) !== false) {
        if (!str_ends_with($name, '.json')) {
            continue;
        }
        closedir($entries);
        $claimed = "$directory/$name.claimed";
        rename("$directory/$name", $claimed);
        $message = json_decode(file_get_contents($claimed), true);
        unlink($claimed);
        return $message;
    }
    closedir($entries);
    return null;
}

if ($job === 'consume') {
    publish($directory, (int) $messages);
}
$started = hrtime(true);
if ($job === 'publish') {
    publish($directory, (int) $messages);
} else {
    $taken = 0;
    while (take($directory) !== null) {
        $taken++;
    }
    if ($taken !== (int) $messages) {
        fwrite(STDERR, "$taken of $messages messages came\n");
        exit(1);
    }
}
echo (hrtime(true) - $started) / 1e9, "\n";
