# An odd and hostile driver (guest/metal's `villain`), beside a guest that goes on writing its own disk and reading it back.
# shellcheck shell=sh

step=1000000
# The random accesses come in so many rounds of 1,000.
rounds=$2

# bare NAME WORDS: creates one, paused, with this command line
bare() {
	metal "$1" "$2" 02
	xl create -q -p "$1.cfg"
}

# serves NAME: in the background; `server` is its process
serves() {
	background "$1.served" xen-virtio serve "$1" --device "blk,socket=/tmp/$1.sock"
	server=$!
	ready "$1.served"
	xl unpause "$1"
}

# says NAME: what it has said
says() { tr -d '\r' <"$(console "$1")"; }

# passes COUNT: waits until the neighbour has been through its disk so often
passed() { says neighbour | grep -c '^disk: round'; }
passes() { [ "$(passed)" -ge "$1" ]; }

# gets PATTERN: waits until the villain has said this, or its last
gets() { within 3600 eval 'says villain | grep -qE "^('"$1"'|villain:|guest (error|fault))"' && says villain | grep -q "^$1"; }

for guest in neighbour villain; do disk $guest; done
bare neighbour 'disk 8 60000'
serves neighbour
neighbour=$server
within 180 passes 2
verdict villain_has_a_neighbour $? neighbour.served "$(console neighbour)"

# It is to take its time, and not the villain's.
xl sched-credit2 -d neighbour -w 16
bare villain "villain 1 $rounds 1000"
serves villain
before=$(passed)
gets 'queue: '
verdict villain_does_what_none_should $? villain.served villain.log "$(console villain)"
says villain | sed '/^queue:/,$d' >answers
diff /lab/answers answers >differences
verdict villain_has_the_answers_of_the_model $? differences
gets 'random: '
[ "$(says villain | grep -c '^queue: ')" = 20 ]
verdict villain_has_queues_that_are_none $? villain.served villain.log "$(console villain)"
gets "villain: ${rounds}000 random accesses"
verdict villain_makes_random_accesses $? villain.served villain.log "$(console villain)"
meanwhile=$(passed)
[ "$meanwhile" -ge $((before + 3)) ]
verdict villain_has_a_neighbour_that_goes_on_meanwhile $? "$(console neighbour)"
wait $server
verdict villain_serve_ends_with_its_guest $? villain.served
sed 's/^/        /' villain.served
echo "        $(says villain | tail -n 1), and the neighbour has been through its disk $(($(passed) - before)) times"

within 180 passes $((meanwhile + 1)) && ! says neighbour | grep '^guest' >said
verdict villain_leaves_its_neighbour_alone $? said neighbour.served "$(console neighbour)"
xl destroy neighbour
wait $neighbour
verdict villain_neighbours_serve_ends_with_it $? neighbour.served
left villain
exit 0
