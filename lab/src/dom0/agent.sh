# Serves the host's commands, one line each, on the second serial port.
#
#   run ID SECONDS SCRIPT      runs SCRIPT (base64); answers `@lab ID begin`, its output, a line
#                              feed, and `@lab ID end STATUS`, or `... timeout` when it was killed
#   shell ROWS COLUMNS         a shell for a person, until it exits
tty=/dev/$LAB_TTY
quiet() { stty -F "$tty" 115200 raw -echo; }

# The command has a process group of its own, so that a timeout ends all that it started.
# shellcheck disable=SC2016
supervise='trap "echo timeout >/run/lab/verdict; kill -9 0" TERM; sh /run/lab/script & wait $!'

# serve ID SECONDS: runs /run/lab/script.
serve() {
	echo end >/run/lab/verdict
	echo "@lab $1 begin" >&3
	timeout "$2" setsid sh -c "$supervise" </dev/null >&3 2>&1 3>&-
	status=$?
	printf '\n@lab %s %s %s\n' "$1" "$(cat /run/lab/verdict)" $status >&3
}

mkdir -p /run/lab
quiet
exec 3<>"$tty"
echo "@lab ready" >&3
# A script of the image runs without a word from the host, whose timing is never twice the same.
if [ -f /lib/lab/script ]; then
	cp /lib/lab/script /run/lab/script
	serve 0 "$(cat /lib/lab/seconds)"
fi
while IFS= read -r line <&3; do
	# shellcheck disable=SC2086
	set -- $line
	case $1 in
	run)
		echo "$4" | base64 -d >/run/lab/script
		serve "$2" "$3"
		;;
	shell)
		stty -F "$tty" sane rows "$2" cols "$3"
		setsid -c sh -i <"$tty" >"$tty" 2>&1 3>&-
		# The end of a session hangs its terminal up, our descriptor with it.
		exec 3<>"$tty"
		quiet
		echo "@lab ready" >&3
		;;
	esac
done
echo "lab-agent: the host closed $tty"
