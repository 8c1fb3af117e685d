cdef class Settings:
    cdef public bint forward4, forward6, icmp_echo_ignore_all, icmp_echo_ignore_broadcasts, reject_local_answers
    cdef public int ttl, icmp_ratemask, icmp_msgs_per_sec, icmp_msgs_burst, frag_max_dist, min_pmtu
    cdef public unsigned long long icmp_ratelimit, icmp6_ratelimit
    cdef public Py_ssize_t frag_high, frag_low, unres_qlen_bytes
    cdef public unsigned long long frag_time4, frag_time6, mtu_expires4, mtu_expires6
    cdef public int gc_thresh1, gc_thresh2, gc_thresh3, ucast_probes, mcast_probes, arp_ignore, rp_filter
    cdef public unsigned long long gc_interval, gc_stale_time, base_reachable_time, retrans_time, delay_probe_time, locktime
