// What runs in the containers of the lab's real nodes; only Go's own library, so that it is small
// and an image holds nothing else.
module ringfence.io/testbed/responder

go 1.26.0
