# bash completion of armferry; does nothing without the package python3-argcomplete
if command -v register-python-argcomplete >/dev/null 2>&1; then
    eval "$(register-python-argcomplete armferry)"
elif command -v register-python-argcomplete3 >/dev/null 2>&1; then
    eval "$(register-python-argcomplete3 armferry)"
fi
