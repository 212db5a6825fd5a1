# Completion of `realize` for fish, as `realize completion fish` prints it.

# The words of the line before the cursor, without the one that is being typed.
function __realize_words
    commandline -opc
end

# Whether nothing stands behind `realize` yet.
function __realize_begins
    test (count (__realize_words)) -eq 1
end

# Whether the line is one of these commands; without one it is `move`.
function __realize_is
    set -l words (__realize_words)
    if set -q words[2]; and contains -- $words[2] $__realize_commands
        contains -- $words[2] $argv
    else
        contains -- move $argv
    end
end

# Whether what is being typed may be a path of this machine; a colon before the first slash is for peers.
function __realize_is_local
    not string match -qr '^[^/]*:' -- (commandline -ct)
end

# What `realize` knows of that kind.
function __realize_ask -a kind
    set -l words (__realize_words)
    set -l program (string replace -r '^~/' "$HOME/" -- $words[1])
    set -l config ''
    set -l before
    set -l pending ''
    set -e words[1]
    if set -q words[1]; and contains -- $words[1] $__realize_commands
        set -e words[1]
    end
    for each in $words
        if test -n "$pending"
            test $pending = --config; and set config $each
            set pending ''
        else if string match -q -- '--config=*' $each
            set config (string replace -- '--config=' '' $each)
        else if contains -- $each $__realize_valued
            set pending $each
        else if not string match -q -- '-*' $each
            set -a before $each
        end
    end
    env _REALIZE_COMPLETE=1 $program $kind "$config" (commandline -ct) $before 2>/dev/null </dev/null
end

complete -c realize -e
complete -c realize -f
@TABLES@
