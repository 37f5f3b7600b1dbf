Feature: Observability
  What happened can be counted, read and followed.

  @OC-POOL-3030
  Scenario: A preload is counted by its outcome
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the metric "skep_preload_total" of pool "pool-0" with outcome "ready" should become 1
    And the metric "skep_pool_ready" of pool "pool-0" should become 1
    And the metric "skep_pool_slots_total" of pool "pool-0" should become 4
    And the metric "skep_host_memory_available_bytes" should be above 0
    And every metric of ours should name its node

  @OC-POOL-3030
  Scenario: A preload that does not fit is counted apart
    Given GPU 0 has 100 MiB
    And the hive is running
    When I preload pool "pool-0" with model "llama-3.1-8b-instruct"
    Then the metric "skep_preload_total" of pool "pool-0" with outcome "does_not_fit" should become 1
    And the metric "skep_pool_ready" of pool "pool-0" should become 0

  @OC-POOL-3030
  Scenario: Restarts are counted by their reason
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    When a worker of pool "pool-0" is killed
    Then pool "pool-0" should replace the worker, with the reason "signal"
    And the metric "skep_restart_total" of pool "pool-0" with reason "signal" should become 1
    And the log should tell the verdict on pool "pool-0" with every field

  @OC-POOL-3003 @OC-POOL-3030
  Scenario: Logs and events can be read by programs
    Given the hive is running
    And pool "pool-0" is ready with model "llama-3.1-8b-instruct"
    Then the log should have an event of pool "pool-0" with every field
    And the events of pool "pool-0" should have ids that grow by one
