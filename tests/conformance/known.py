"""Where other runtimes are known to differ, and why.  Warren has no entry here.

Such a test still runs: if it fails, it is reported as a known difference; if it passes, the entry is out of date
and the test fails.
"""

POSTSTART_AT_CREATE = "runs poststart hooks at the end of create, not of start (changed by pull request 5186)"
SCHEDULING = "ignores scheduler, ioPriority and execCPUAffinity before 1.2"

NEWER_LIMITS = "ignores cpu.burst and cpu.idle before 1.2, and a pids.limit of 0 before 1.4"

ENOENT_IS_127 = "says that no such file exists, whatever is missing: podman takes that for the command"
MISSING = (
    "no bundle", "no rootfs", "no source", "no namespace", "no hook", "a hook's own words", "no console",
    "no process file", "no sysctl",
)  # fmt: skip

NET_DEVICES = [
    "test_a_device_moves",
    "test_other_addresses_stay_behind",
    "test_several_devices_keep_apart",
    "test_a_device_is_there_for_hooks_and_sysctls",
    "test_a_name_that_is_taken_is_an_error",
    "test_a_device_that_cannot_move_is_an_error",
    "test_names_that_no_device_can_have_are_errors",
    "test_devices_need_a_network_namespace",
]

KNOWN: dict[str, dict[str, str]] = {
    # runc 1.1.5, Debian 12.
    "runc": {
        "test_a_malformed_configuration_is_an_error[null]": "panics: nil pointer dereference",
        "test_another_version_is_an_error": "does not look at ociVersion",
        "test_poststart_hooks_follow_the_start": POSTSTART_AT_CREATE,
        "test_a_failing_poststart_hook_ends_the_container": POSTSTART_AT_CREATE,
        "test_a_failing_start_container_hook_ends_the_container": "start returns before these hooks run",
        "test_a_failing_poststop_hook_is_a_warning": "the hooks after the failing one do not run",
        "test_the_callers_umask_does_not_shape_the_rootfs": "mount points are made under the caller's umask",
        "test_what_cannot_be_granted_is_logged": "fails for a capability that it has not got itself",
        "test_personality": "ignores personality before 1.2",
        "test_a_strict_filter_need_not_know_the_runtime": "loads the filter before the last of its own calls",
        "test_an_agent_may_hold_back_the_runtimes_own_calls": "waits for ever for an agent that has no listener yet",
        "test_what_the_kernel_can_hold_is_held[cpu.burst]": NEWER_LIMITS,
        "test_what_the_kernel_can_hold_is_held[cpu.idle]": NEWER_LIMITS,
        "test_what_the_kernel_can_hold_is_held[pids.limit-0]": NEWER_LIMITS,
        "test_what_the_kernel_can_hold_is_held[memory.kernelTCP]": "ignores limits of kernel memory since 1.0",
        "test_what_the_kernel_can_hold_is_held[hugepageLimits]": "does not look for v1's missing controllers in v2",
        "test_the_domainname_is_set": "ignores domainname before 1.2",
        "test_maps_need_a_user_namespace": "ignores maps where there is no user namespace",
        "test_a_user_namespace_is_joined_by_path[no maps]": "wants maps for a namespace that has its own",
        "test_root_propagation[shared]": "leaves the root private where the host's is private",
        "test_root_propagation[unbindable]": "cannot bind a root that it has made unbindable",
        "test_links_never_redirect_to_the_host[dev]": "CVE-2026-41579: follows a link at /dev",
        "test_device_nodes_never_redirect_to_the_host": "CVE-2026-41579: follows a link at /dev",
        "test_masking_wants_the_real_null_device": "CVE-2025-31133: takes any file for the null device",
        "test_malformed_devices_are_errors[{'path': 'dev/relative'}]": "takes a relative path for one below /",
        "test_malformed_devices_are_errors[{'path': ''}]": "ignores a device without a path",
        "test_a_file_in_the_way_is_an_error": "leaves the file and goes on",
        "test_dev_console_is_the_containers_own": "waits for ever",
        "test_users_are_parsed_strictly[]": "takes an empty user for no user",
        "test_users_are_parsed_strictly[4294967296]": "wraps around to root",
        "test_a_process_has_a_umask": "exec ignores umask",
        "test_scheduler": SCHEDULING,
        "test_a_scheduler_that_there_is_not": SCHEDULING,
        "test_io_priority": SCHEDULING,
        "test_exec_has_the_containers_scheduler": SCHEDULING,
        "test_exec_affinity": SCHEDULING,
        "test_a_malformed_affinity": SCHEDULING,
        "test_time_offsets": "knows no time namespace before 1.2",
        "test_passed_sockets": "wants its own pid in LISTEN_PID",
        "test_a_label_without_selinux_is_an_error[mounts]": "passes the context to mount(2), which says EINVAL",
        **dict.fromkeys(NET_DEVICES, "knows no netDevices before 1.4"),
        "test_memory_policy": "knows no memoryPolicy before 1.4",
        "test_a_memory_policy_that_there_is_not": "knows no memoryPolicy before 1.4",
        "test_a_cgroup_that_others_are_in_is_an_error": "goes on with a warning before 1.2",
        **{f"test_words_of_an_error[{fault}]": ENOENT_IS_127 for fault in MISSING},
        "test_words_of_an_error[an unknown global flag]": "does not log what is wrong with its global flags",
        "test_a_pidfd_is_sent": "knows no --pidfd-socket before 1.2",
        "test_rootless_is_one_of_three_words": "looks at --rootless when it launches, not for list",
        "test_intel_rdt_needs_its_file_system": "ignores intelRdt where there is none",
        "test_the_configuration_works_as_it_is": "knows no seccomp flags before 1.1.6",
        "test_a_mounts_own_maps": "ignores mappings of mounts before 1.2",
        "test_two_mounts_with_maps": "ignores mappings of mounts before 1.2",
        "test_null_says_nothing": "panics: nil pointer dereference",
        "test_a_contradiction_changes_nothing": "the limit is set when the swap is refused, and is not set back",
        "test_trailing_garbage_is_malformed": "reads the first value alone",
        "test_a_device_is_allowed_and_denied_again": "update leaves the device rules alone",
        "test_a_stream_ends_with_its_container": "events goes on until the container is deleted",
        "test_a_damaged_state_hides_no_container": "leaves the container running and its directory behind",
    },
}
