Feature: Health and restarts
  What dies or hangs is found and replaced; what keeps dying is bounded.

  @OC-POOL-3060
  Scenario: A worker that dies is replaced, and its neighbour goes on
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct" and 2 replicas
    When a worker of pool "pool-0" is killed
    Then pool "pool-0" should replace the worker, with the reason "signal"
    And the neighbours should not have been touched

  @OC-POOL-3060
  Scenario: A worker that hangs is found
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When a worker of pool "pool-0" hangs
    Then pool "pool-0" should replace the worker, with the reason "health"
    And pool "pool-0" should have gone straight from "unready" to "ready"
    And the metric "skep_health_check_total" of pool "pool-0" with outcome "silent" should become 3

  @OC-POOL-3060
  Scenario: A worker that was only slow is forgiven
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When a worker of pool "pool-0" stalls until it is suspected
    Then the worker of pool "pool-0" should be forgiven
    And pool "pool-0" should still be ready

  @OC-POOL-3060
  Scenario: A worker that dies while it is suspected is replaced
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When a worker of pool "pool-0" hangs, and dies while it is suspected
    Then pool "pool-0" should replace the worker, with the reason "signal"

  @OC-POOL-3010
  Scenario: A device error takes the pool out and restarts it with doubled backoff
    Given the model "burning" is "fake:burning?fail_decode=device_error&fail_decode_after=3&fail_decode_times=9999"
    And the hive is running with a probe every 3 s
    And pool "pool-0" is ready with model "burning"
    When a worker of pool "pool-0" meets a device error
    Then the verdicts of pool "pool-0" should have the reason "device_error"
    And pool "pool-0" should wait twice as long after a device error
    And the metric "skep_driver_reset_total" of pool "pool-0" should become 1

  @OC-POOL-3011
  Scenario: The wait doubles with each failure
    Given the model "bad" is "fake:bad?fail_load=model_load_failed"
    And the hive is running
    When I preload pool "pool-0" with model "bad"
    Then pool "pool-0" should wait longer after each failure

  @OC-POOL-3011
  Scenario: A storm opens the breaker, and a reset tries again at once
    Given failed workers are tried again after 0.05 s, and more than 10 restarts within 600 s are a storm
    And the model "bad" is "fake:bad?fail_load=model_load_failed"
    And the hive is running
    And pool "pool-0" is declared with 4 replicas of model "bad"
    When I preload pool "pool-0"
    Then a storm should open the breaker of pool "pool-0"
    When I reset pool "pool-0"
    Then pool "pool-0" should try again at once

  @OC-POOL-3011
  Scenario: Failures in a row open the breaker, one trial at a time is let through, and what holds closes it
    Given failed workers are tried again after 0.05 s, and 2 failures in a row stop them for 1.5 s
    And the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct" and 2 replicas
    When each worker of pool "pool-0" is killed as often as it comes back, 2 times
    Then the metric "skep_breaker_state" of pool "pool-0" should become 2
    And the breaker of pool "pool-0" should have opened with failure 2 of each replica
    And the replicas of pool "pool-0" should have been tried once each, one at a time
    And the metric "skep_breaker_state" of pool "pool-0" should become 0
    And pool "pool-0" should become "ready"
