# Unpack packages of Debian or Ubuntu under .tools/debian, without root and without installing them.
# Source it from the top of the checkout.

# unpack PACKAGE: put its files under .tools/debian; fails in silence where apt or the package is missing.
unpack() {
    command -v apt-get > /dev/null && command -v dpkg > /dev/null || return 1
    echo "setup: unpacking Debian's $1 under .tools/ (nothing is installed)"
    mkdir -p .tools/debian .tools/apt/lists/partial .tools/apt/cache/archives/partial
    download "$1" || { private_index && download "$1" $private_apt; } || return 1
    dpkg -x .tools/apt/"$1"_*.deb .tools/debian && rm .tools/apt/"$1"_*.deb
}

# download PACKAGE [OPTION...]: fetch its .deb into .tools/apt.
download() {
    package=$1
    shift
    (cd .tools/apt && apt-get "$@" -qq -o APT::Sandbox::User=root download "$package") 2> /dev/null
}

# A machine whose package index was never fetched, or has aged: fetch one of our own.
private_apt="-o Dir::State::Lists=$PWD/.tools/apt/lists -o Dir::Cache=$PWD/.tools/apt/cache"
private_index() {
    apt-get $private_apt -qq -o APT::Sandbox::User=root update 2> /dev/null
}
