# Completion of `realize` for bash, as `realize completion bash` prints it. Needs bash 4.3 or newer, and nothing else.

declare -gA _realize_options _realize_values _realize_arguments
@TABLES@

# Add to COMPREPLY those of the words that begin with what is typed, with a space behind each that is complete.
_realize_offer() {
    local each
    for each; do
        [[ $each == "$cur"* ]] || continue
        [[ $each == *: ]] || each+=" "
        COMPREPLY+=("$each")
    done
}

# Offer what `realize` knows: KIND, and then the arguments that precede.
_realize_ask() {
    local kind=$1 found
    shift
    mapfile -t found < <(_REALIZE_COMPLETE=1 "$program" "$kind" "$config" "$cur" "$@" 2>/dev/null </dev/null)
    _realize_offer "${found[@]}"
}

# Offer local files, if there is anything else to offer; if not, readline does it itself, and better.
_realize_files() {
    local each
    [[ $cur =~ ^[^/]*: ]] && return
    if (( ${#COMPREPLY[@]} == 0 )); then
        compopt -o default
        return
    fi
    while IFS= read -r each; do
        if [[ -d $each ]]; then
            printf -v each '%q/' "$each"
        else
            printf -v each '%q ' "$each"
        fi
        COMPREPLY+=("$each")
    done < <(compgen -f -- "$cur")
}

# Offer what an entry of the tables says: words, `@KIND` to ask for, `/` for files; then the arguments that precede.
_realize_entry() {
    local entry each files=
    entry=$1
    shift
    for each in $entry; do
        case $each in
            /) files=1 ;;
            @*) _realize_ask "${each#@}" "$@" ;;
            *) _realize_offer "$each" ;;
        esac
    done
    [[ -z $files ]] || _realize_files
}

_realize() {
    local program=${1/#\~\//$HOME/} config= cur= command=move first= only_arguments= pending= prefix= cut breaks each i
    local rest=${COMP_LINE:0:COMP_POINT}
    local -a words=() before=()
    COMPREPLY=()

    # Bash cuts words at what COMP_WORDBREAKS has, such as the colons of a location: put them together again.
    for (( i = 0; i <= COMP_CWORD; i++ )); do
        each=${COMP_WORDS[i]}
        if (( i == 0 )) || [[ -z $rest || $rest == [[:space:]]* ]]; then
            words+=("")
            rest=${rest#"${rest%%[![:space:]]*}"}
        fi
        [[ $rest == "$each"* ]] || each=$rest
        words[-1]+=$each
        rest=${rest#"$each"}
    done
    (( ${#words[@]} > 1 )) || return
    cur=${words[-1]}
    unset 'words[-1]'

    i=1
    if (( ${#words[@]} == 1 )); then
        first=1
    elif [[ ${_realize_arguments[${words[1]}]+known} ]]; then
        command=${words[1]}
        i=2
    fi
    for (( ; i < ${#words[@]}; i++ )); do
        each=${words[i]}
        if [[ $pending ]]; then
            [[ $pending != --config ]] || config=$each
            pending=
        elif [[ $only_arguments || $each != -?* ]]; then
            before+=("$each")
        elif [[ $each == -- ]]; then
            only_arguments=1
        elif [[ $each == --config=* ]]; then
            config=${each#*=}
        elif [[ ${_realize_values["$command $each"]+known} ]]; then
            pending=$each
        fi
    done

    if [[ $pending ]]; then
        _realize_entry "${_realize_values["$command $pending"]}"
    elif [[ ! $only_arguments && $cur == --*=* ]]; then
        prefix=${cur%%=*}=
        cur=${cur#*=}
        _realize_entry "${_realize_values["$command ${prefix%=}"]}"
    elif [[ ! $only_arguments && $cur == -* ]]; then
        [[ ! $first ]] || _realize_offer --version
        _realize_offer ${_realize_options[$command]}
    else
        [[ ! $first ]] || _realize_offer "${!_realize_arguments[@]}"
        _realize_entry "${_realize_arguments[$command]}" "${before[@]}"
    fi
    (( ${#COMPREPLY[@]} )) || return
    compopt -o nospace

    # Bash replaces only what stands behind the last place where it has cut.
    breaks=${COMP_WORDBREAKS//[^:=]/}
    [[ $breaks == *=* ]] || COMPREPLY=("${COMPREPLY[@]/#/$prefix}")
    if [[ $breaks ]]; then
        [[ $breaks == *=* ]] || cur=$prefix$cur
        cut=${cur%"${cur##*[$breaks]}"}
        COMPREPLY=("${COMPREPLY[@]#"$cut"}")
    fi
}

complete -F _realize realize
