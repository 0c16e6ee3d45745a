# SPDX-License-Identifier: MIT
# Makes the manual pages of the calls from vipl.h, where they are written: a comment and the
# prototypes below it are a page, under the name of each.
# Usage: awk -v dir=FOLDER -v date=DATE -f man.awk vipl.h

# "/* --- memory ------ */" begins a section, which says in a few words what a page is about.
/^\/\* --- / {
    section = $0
    gsub(/^\/\* --- | -+ \*\/$/, "", section)
    text = ""
    next
}

/^\/\*/ {
    text = ""
    comment = 1
}

comment {
    line = $0
    if (line ~ /\*\/$/) {
        comment = 0
    }
    sub(/ ?\*\/$/, "", line)
    sub(/^ ?\/?\* ?/, "", line)
    text = text line "\n"
    next
}

/^VIP_[A-Z]+ Vip[A-Za-z]+\(/ {
    prototype = ""
}

/^VIP_[A-Z]+ Vip[A-Za-z]+\(/, /;$/ {
    prototype = prototype " " $0
    if ($0 ~ /;$/) {
        calls[++count] = prototype
    }
    next
}

/^$/ {
    finish()
}

END {
    finish()
}

function finish() {
    if (count) {
        page()
    }
    count = 0
    text = ""
}

function name_of(call) {
    match(call, /Vip[A-Za-z]+/)
    return substr(call, RSTART, RLENGTH)
}

function page(    i) {
    if (text ~ /^\n*$/) {
        print name_of(calls[1]) ": there is no comment to make a page of" > "/dev/stderr"
        exit 1
    }
    for (i = 1; i <= count; i++) {
        page_of(name_of(calls[i]))
    }
}

function page_of(name,    file, i) {
    file = dir "/" name ".3"
    print ".\\\" SPDX-License-Identifier: MIT" > file
    print ".Dd " date "\n.Dt " toupper(name) " 3\n.Os\n.Sh NAME" > file
    for (i = 1; i <= count; i++) {
        print ".Nm " name_of(calls[i]) (i < count ? " ," : "") > file
    }
    print ".Nd VIPL: " section "\n.Sh SYNOPSIS\n.In vipl.h" > file
    for (i = 1; i <= count; i++) {
        synopsis(calls[i], file)
    }
    print ".Sh DESCRIPTION" > file
    description(file)
    print ".Sh RETURN VALUES" > file
    print "What is named above, or\n.Dv VIP_SUCCESS .\nA handle that is none, and a pointer" > file
    print "that is missing, are\n.Dv VIP_INVALID_PARAMETER .\n.Sh SEE ALSO\n.Xr vipl 7" > file
    close(file)
}

function synopsis(call, file,    arguments, i, n) {
    sub(/^ /, "", call)
    gsub(/  +/, " ", call)
    print ".Ft " substr(call, 1, index(call, " ") - 1) "\n.Fo " name_of(call) > file
    sub(/^[^(]*\(/, "", call)
    sub(/\);$/, "", call)
    n = split(call, arguments, /, */)
    for (i = 1; i <= n; i++) {
        gsub(/^(IN OUT|IN|OUT) /, "", arguments[i])
        print ".Fa \"" arguments[i] "\"" > file
    }
    print ".Fc" > file
}

# Lines that are indented are a table; all else is text, a sentence a line.
function description(file,    lines, i, n, paragraph) {
    n = split(text, lines, "\n")
    for (i = 1; i <= n; i++) {
        gsub(/\\/, "\\e", lines[i])
        if (lines[i] ~ /^  /) {
            paragraph = flush(paragraph, file)
            table(lines[i], lines[i - 1] !~ /^  /, lines[i + 1] !~ /^  /, file)
        } else if (lines[i] ~ /^ *$/) {
            if (paragraph != "" && lines[i + 1] != "" && lines[i + 1] !~ /^  /) {
                paragraph = flush(paragraph, file)
                print ".Pp" > file
            }
        } else {
            paragraph = paragraph (paragraph == "" ? "" : " ") lines[i]
        }
    }
    flush(paragraph, file)
}

function table(line, first, last, file) {
    if (first) {
        print ".Bd -literal" > file
    }
    print line > file
    if (last) {
        print ".Ed" > file
    }
}

# A sentence a line, and none too long.
function flush(paragraph, file,    words, i, n, width) {
    n = split(paragraph, words, / +/)
    for (i = 1; i <= n; i++) {
        if (width && (width + length(words[i]) > 76 || words[i - 1] ~ /[.]$/)) {
            printf "\n" > file
            width = 0
        }
        printf "%s%s", width ? " " : "", words[i] ~ /^[.]/ && !width ? "\\&" words[i] : words[i] > file
        width += length(words[i]) + 1
    }
    if (n) {
        printf "\n" > file
    }
    return ""
}
