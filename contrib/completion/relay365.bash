# bash completion for relay365(8). The commands are those of ctl/main.c; a test compares them.
_relay365()
{
	local commands='alarm authorize backup check doctor explain hold limits lock metrics probe
		queue release reload reset setup status token unlock why'
	local cur=${COMP_WORDS[COMP_CWORD]} command= word i words=
	for ((i = 1; i < COMP_CWORD; i++)); do
		word=${COMP_WORDS[i]}
		case $word in
		-c | --config) ((i++)) ;;
		-*) ;;
		*)
			command=$word
			break
			;;
		esac
	done
	case $command in
	'') words="$commands --config --json --help --version" ;;
	setup)
		case ${COMP_WORDS[i + 1]} in
		tenant) words='--id --mailboxes --client-id --object-id --domains --send-as
			--postmaster --address --secret-file --licences --replace' ;;
		postfix | sendmail) words='--apply --undo --print --config-dir' ;;
		*) words='tenant postfix sendmail' ;;
		esac
		;;
	authorize)
		[[ ${COMP_WORDS[COMP_CWORD - 1]} == --import ]] &&
			COMPREPLY=($(compgen -f -- "$cur")) && return
		words='--browser --import --json'
		;;
	doctor) words='--send --transcript --nagios --config-dir' ;;
	probe) words='--wait --transcript' ;;
	lock) words='--reason --for' ;;
	limits) words='--what-if --log' ;;
	release) words='--log --any --sendmail' ;;
	queue) words='--sendmail' ;;
	why) words='--sendmail --log' ;;
	reset) words='--limit --delivered' ;;
	status) words='--json --watch' ;;
	reload) words='tokend milter submit' ;;
	explain) COMPREPLY=($(compgen -f -- "$cur")) && return ;;
	*) words='--json' ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o filenames -F _relay365 relay365
