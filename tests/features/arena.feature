Feature: The arena
  A policy is tried on a simulated cluster; what it does is recorded, and nothing is left running.

  @SK-ARENA-1001
  Scenario: The heuristic mends a workload that asks for too much
    Given a trace of 3 pods of "1500m" CPU
    And a simulated cluster of 2 nodes with "2" CPU
    When I run an episode with the policy "heuristic"
    Then the episode should be solved
    And the actions should be "reduce_cpu_small, noop"

  @SK-ARENA-1001
  Scenario: More CPU does not help a pod that does not fit
    Given a trace of 3 pods of "1500m" CPU
    And a simulated cluster of 2 nodes with "2" CPU
    When I run an episode with the policy "simple"
    Then the episode should not be solved

  @SK-ARENA-1002
  Scenario: Every step is recorded
    Given a trace of 3 pods of "1500m" CPU
    And a simulated cluster of 2 nodes with "2" CPU
    When I run an episode with the policy "oracle"
    Then every step should be recorded with status "ok"
    And the summary should count every recorded step

  @SK-ARENA-1003
  Scenario: One seed, one outcome
    Given a trace of 3 pods of "1500m" CPU
    And a simulated cluster of 2 nodes with "2" CPU
    When I run an episode with the policy "random"
    And I run an episode with the policy "random"
    Then both episodes should have left the same records

  @SK-ARENA-1004
  Scenario: A malformed trace changes nothing
    Given a trace of 3 pods of "1500m" CPU
    And the trace is cut short
    When I run an episode with the policy "heuristic"
    Then the episode should be refused as "trace_truncated"
    And nothing should have been written

  @SK-ARENA-1005
  Scenario: A safeguard blocks what goes too far
    Given a trace of 3 pods of "15900m" CPU
    When I run an episode with the policy "bump_cpu"
    Then an action should have been blocked

  @SK-ARENA-1006
  Scenario: A simulation is deleted when its pods cannot be observed
    Given a trace of 3 pods of "1500m" CPU
    And a Kubernetes cluster with SimKube
    And its pods cannot be listed
    When I run an episode with the policy "heuristic"
    Then the episode should be refused as "observation_failed"
    And every step should be recorded with status "failed"
    And no simulation should be left on the cluster

  @SK-ARENA-1007
  Scenario: The same step runs on SimKube
    Given a trace of 3 pods of "1500m" CPU
    And a Kubernetes cluster with SimKube
    When I run an episode with the policy "noop"
    Then every step should be recorded with status "ok"
    And no simulation should be left on the cluster
