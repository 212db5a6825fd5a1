#compdef realize
# Completion of `realize` for zsh, as `realize completion zsh` prints it.

# Add what `realize` knows of a kind; the status says whether that is anything.
_realize_ask() {
    local kind=$1 each
    local -a found whole open
    found=("${(@f)$(_REALIZE_COMPLETE=1 $program $kind "${(Q)opt_args[--config]}" "${(Q)PREFIX}" "${(@Q)line[1,-2]}" \
        2>/dev/null </dev/null)}")
    for each in $found; do
        if [[ $each == *: ]]; then open+=($each); else whole+=($each); fi
    done
    compadd -a whole
    compadd -S '' -a open
    (( $#whole + $#open ))
}

# A location: what `realize` knows, and local files unless a peer is typed.
_realize_location() {
    local ret=1
    _realize_ask location && ret=0
    [[ $PREFIX == [^/]#:* ]] || { _files && ret=0 }
    return ret
}
@TABLES@
_realize() {
    setopt local_options extended_glob
    local curcontext=$curcontext ret=1
    local program=${${(Q)words[1]}/#\~\//$HOME/}
    local command=move
    local -a line
    local -A opt_args
    if (( CURRENT == 2 )) && [[ $PREFIX != -* ]]; then
        _describe -t commands command _realize_commands && ret=0
    elif (( CURRENT > 2 )) && (( ${_realize_commands[(I)${(Q)words[2]}:*]} )); then
        command=${(Q)words[2]}
        shift words
        (( CURRENT-- ))
    fi
    _realize_of_$command && ret=0
    return ret
}

if [[ $funcstack[1] == _realize ]]; then
    _realize "$@"
else
    compdef _realize realize
fi
